"""Check in full what the cache keeps and what runs wrote; what is wrong in the cache is set aside.

Where it is asked for, a large file whose size and time did not move is not read; here each is.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sadi_bench.aside import is_target
from sadi_bench.disk import sha256
from sadi_bench.errors import SettingError
from sadi_bench.results.reading import check_run
from sadi_bench.results.run_dir import is_complete
from sadi_bench.sealed import broken, file_broken, set_aside


def wrong_in_cache(cache: Path) -> Iterator[str]:
    """Yield a line for each thing of the cache that is wrong; it is set aside, and made again."""
    for part, wrong in CHECKS.items():
        folder = cache / part
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if is_target(path) and (reason := wrong(path)) is not None:
                yield f"{reason}; {_put_aside(path)}"


def wrong_runs(runs_dir: Path) -> Iterator[str]:
    """Yield a line for each finished run of a folder that has a damaged or edited file."""
    for path in sorted(runs_dir.iterdir()) if runs_dir.is_dir() else ():
        if is_complete(path):
            try:
                check_run(path)
            except SettingError as error:
                yield str(error)


def _sealed(path: Path) -> str | None:
    return broken(path, full=True)


def _package(folder: Path) -> str | None:
    """Say which file of a package's folder has not the digest that the folder is named by."""
    files = sorted(folder.glob("*"))
    wrong = [file for file in files if sha256(file) != folder.name]
    return f"{wrong[0]}: not what its folder's SHA-256 says" if wrong else None


def _put_aside(path: Path) -> str:
    try:
        return f"now {set_aside(path)}; it is made again when it is needed"
    except OSError as error:
        return f"it cannot be moved away ({error.strerror}): delete it"


CHECKS: Mapping[str, Callable[[Path], str | None]] = {
    "models": _sealed,
    "finetuned": _sealed,
    "activations": file_broken,
    "judges": file_broken,
    "packages": _package,
}
"""A part of the cache → what says what is wrong with a thing of it."""
