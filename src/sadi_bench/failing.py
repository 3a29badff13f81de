"""What a failing run leaves in its directory: its settings and the error."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sadi_bench.disk import write_atomically
from sadi_bench.errors import user_line
from sadi_bench.results.run_dir import CONFIG, is_complete

ERROR = "error.txt"
_PLACE = "run_directory"


@contextmanager
def failure_kept(path: Path, config: str) -> Iterator[None]:
    """Write error.txt, and the config (YAML text), into a run's directory where the run fails.

    A mistake of the program stands there with its traceback. A run that succeeds has no error.txt.
    """
    try:
        yield
    except Exception as error:
        setattr(error, _PLACE, path)
        line = user_line(error)
        text = f"{line}\n" if line else "".join(traceback.format_exception(error))
        files = {path / ERROR: text.encode()}
        if not is_complete(path):  # an older result stands, and its config with it
            files |= {path / CONFIG: config.encode()}
        with suppress(OSError):  # a full disk is what failed
            write_atomically(files)
        raise
    with suppress(FileNotFoundError):
        (path / ERROR).unlink()


def place_of(error: Exception) -> Path | None:
    """Return the directory of the run that raised an error; None where it had none yet."""
    return getattr(error, _PLACE, None)
