"""Damage to files, as a disk or an editor does it."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def flip(path: Path, *, keep_time: bool = True) -> None:
    """Turn one bit in the middle of a file over; its size stays, and its time if asked."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def contents(folder: Path) -> dict[str, bytes]:
    """Read the files of a folder, by name."""
    return {file.relative_to(folder).as_posix(): file.read_bytes()
            for file in sorted(folder.rglob("*")) if file.is_file()}  # fmt: skip


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file of this process grow beyond `room` bytes: "File too large", as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
