"""Large things of the cache are made aside, by one process at a time, and moved into place whole.

    models/NAME           whole and sealed, or absent
    models/NAME.lock      held by the process that makes it; its death releases it
    models/NAME.scratch   what it is made in
    finetuned/NAME.partial   the same, for a training that another process can go on with

On a file system without locks each process works in a scratch folder of its own, and the first to
finish wins.
"""

import logging
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sadi_bench.disk import held, sync
from sadi_bench.sealed import LOCK, broken, delete_temporary, seal, set_aside

log = logging.getLogger(__name__)
SCRATCH, PARTIAL = ".scratch", ".partial"
OLDER = ("tmp*", "download-*")
"""Scratch folders as older versions named them."""


@contextmanager
def making(target: Path, *, resumable: bool = False) -> Iterator[Path]:
    """Hold `target` against other processes, which wait; yield the folder to make it in.

    The folder is empty, and goes at the end. One that is `resumable` is found as it was left, and
    stays unless it is empty.
    """

    def waiting() -> None:
        log.info("%s: another process makes it; waiting", target)

    target.parent.mkdir(parents=True, exist_ok=True)
    with held(target.with_name(target.name + LOCK), wait=waiting) as locked:
        own = "" if locked else f".{secrets.token_hex(4)}"
        if not locked:
            log.info("%s: this file system has no locks; others may make it too", target.parent)
        resumable &= locked
        scratch = target.with_name(target.name + own + (PARTIAL if resumable else SCRATCH))
        if not resumable:
            shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(exist_ok=True)
        try:
            yield scratch
        finally:
            if not resumable:
                shutil.rmtree(scratch, ignore_errors=True)
            with suppress(OSError):
                scratch.rmdir()


def install(made: Path, target: Path, made_from: Mapping[str, str]) -> None:
    """Seal a folder and move it into place; a damaged one that is there is set aside.

    Where another process was first, its folder stays.
    """
    seal(made, made_from)
    if broken(target, made_from) is None:
        return
    if target.exists():
        set_aside(target)
    try:
        made.rename(target)
    except OSError:
        if broken(target, made_from) is not None:
            raise
    sync(target.parent)


def delete_leftovers(cache: Path) -> None:
    """Delete what killed processes left in the parts of the cache, and no live one holds.

    A training that is not done stays: the next run goes on with it.
    """
    for part in sorted(cache.glob("*/")):
        if any(part.glob(".*.tmp")):
            with _free(part / LOCK) as free:
                if free:
                    delete_temporary(part)
        for target, leftover in _leftovers(part):
            with _free(target.with_name(target.name + LOCK)) as free:
                if free:
                    shutil.rmtree(leftover, ignore_errors=True)


def is_target(path: Path) -> bool:
    """Say whether something in a part of the cache is what is kept, not a lock or a scratch."""
    return not path.name.startswith(".") and path.suffix not in (LOCK, SCRATCH, PARTIAL)


def _leftovers(part: Path) -> list[tuple[Path, Path]]:
    """List what was made aside, and is of no more use unless its lock is held: target, folder."""
    found = [(path, path) for pattern in OLDER for path in part.glob(pattern)]
    for path in part.iterdir():
        target = path.with_name(path.stem)
        if path.suffix in (LOCK, SCRATCH) or (path.suffix == PARTIAL and target.exists()):
            found.append((target, path))
    return found


@contextmanager
def _free(lock: Path) -> Iterator[bool]:
    """Hold a lock if nobody does; yields False where somebody does, or it cannot be told."""
    with ExitStack() as stack:
        try:
            locked = stack.enter_context(held(lock))
        except OSError:  # Timeout too
            locked = False
        yield locked
