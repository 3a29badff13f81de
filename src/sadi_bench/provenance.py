"""What makes a number: the folder of configs, a digest of the code, the libraries' versions."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGE = Path(__file__).parent
LIBRARIES = ("torch", "transformers", "tokenizers", "lm_eval")


def config_folder() -> Path:
    """Find configs/: inside an installed wheel, or at the top of the repository."""
    package = PACKAGE.resolve()
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parents[1] / "configs"


@cache
def source_digest(*parts: str, package: Path = PACKAGE) -> str:
    """Hash the Python sources of some parts of the package, with their names.

    A part is a file or a folder below `package`, such as `models` or `steering/activations.py`.
    The order of the parts does not matter. The digest is taken once a process, so that it names the
    code that was loaded. Raises FileNotFoundError for a part that does not exist.
    """
    digest = hashlib.sha256()
    for path in sorted({path for part in parts for path in _sources(package / part)}):
        name, source = path.relative_to(package).as_posix().encode(), path.read_bytes()
        for field in (name, source):
            digest.update(len(field).to_bytes(8, "big") + field)
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that compute, by the names in `LIBRARIES`."""
    return {name: version(name) for name in LIBRARIES}


def _sources(part: Path) -> list[Path]:
    if part.is_file():
        return [part]
    if not part.is_dir():
        raise FileNotFoundError(f"{part}: the package has no such part")
    return list(part.rglob("*.py"))
