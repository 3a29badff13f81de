"""What makes a number: the folder of configs, a digest of the code, the libraries' versions."""

import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
LIBRARIES = ("torch", "transformers", "tokenizers", "lm_eval")
SHOWN = ("torch", "transformers", "datasets", "lm_eval", "numpy", "pandas")


def config_folder() -> Path:
    """Find configs/: inside an installed wheel, or at the top of the repository."""
    package = PACKAGE.resolve()
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parents[1] / "configs"


def source_digest(*parts: str, package: Path = PACKAGE) -> str:
    """Hash the Python sources of some parts of the package, with their names.

    A part is a file or a folder below `package`, such as `models` or `steering/activations.py`.
    The order of the parts does not matter. Files of this package are as they were when the process
    began, so that the digest names the code that was loaded. Raises FileNotFoundError for a part
    that does not exist.
    """
    digest = hashlib.sha256()
    for path in sorted({path for part in parts for path in _sources(package / part)}):
        name = path.relative_to(package).as_posix().encode()
        source = LOADED.get(path) or path.read_bytes()
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


LOADED = {path: path.read_bytes() for path in PACKAGE.rglob("*.py")}
"""The sources of this package as they were when the process began."""


def environment() -> dict[str, Any]:
    """Describe the program, the libraries and the machine."""
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "sadi_bench": version("sadi-bench"),
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in SHOWN},
        "cores": os.cpu_count(),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }


def commit() -> str | None:
    """Name the commit of the code that runs, `-dirty` if it was changed; None for a wheel."""
    if not (PACKAGE.parents[1] / ".git").exists():
        return None
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
