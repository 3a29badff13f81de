"""Files that are written whole, folders that are held alone, and where runs and the cache are."""

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

RUNS = "results/runs"
"""Where runs lie unless another folder is named, below the working directory."""
WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What a file system says that has no locks (filelock itself copes with ENOSYS)."""


def cache_folder() -> Path:
    """Return `$SADI_BENCH_CACHE`, else this program's folder in the user's cache folder."""
    if named := os.environ.get("SADI_BENCH_CACHE"):
        return Path(named).expanduser()
    return user_cache_path("sadi-bench", appauthor=False)


def write_atomically(contents: Mapping[Path, bytes]) -> None:
    """Put contents at paths of one folder, in order; a reader sees old or new, never a part.

    All of them are on the disk before the first takes its place: a full disk changes nothing.
    """
    staged = {_aside(path): path for path in contents}
    try:
        for temporary, path in staged.items():
            with temporary.open("xb") as file:
                file.write(contents[path])
                file.flush()
                os.fsync(file.fileno())
        for temporary, path in staged.items():
            os.replace(temporary, path)
    except BaseException:
        for temporary in staged:
            with suppress(OSError):
                temporary.unlink()
        raise
    sync(next(iter(contents)).parent)  # the rename itself must survive a power cut


@contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its place when it is closed; a reader sees old or new, never a part.

    Where the block fails nothing changes.
    """
    temporary = _aside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def held(file: Path, *, wait: Callable[[], None] | None = None) -> Iterator[bool]:
    """Hold a lock file against other processes; the death of this one releases it.

    `wait` is called once where another process holds it, and then it is waited for; without
    `wait` that is an error. Yields False on a file system that has no locks.

    Raises:
        Timeout: another process holds it, and `wait` is None.
    """
    lock = FileLock(file)
    try:
        locked = _acquired(lock, wait)
    except OSError as error:  # Timeout too, which has no number
        if error.errno not in WITHOUT_LOCKS:
            raise
        locked = False
        with suppress(OSError):
            file.unlink()  # made by the attempt; nobody can hold it
    try:
        yield locked
    finally:
        if locked:
            # Gone while it is held: a process that waits then locks a new file, not this one.
            with suppress(OSError):
                file.unlink()
            lock.release()


def _acquired(lock: FileLock, wait: Callable[[], None] | None) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if wait is None:
            raise
        wait()
        lock.acquire()
    return True


def sha256(path: Path) -> str:
    """Return the hex digest of a file's bytes, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
