"""Shards: the results of finished batches, each a file that proves itself whole.

<folder>/<job>/00012-3f9c0a….safetensors    batch 12; the name holds the SHA-256 of its bytes
<folder>/<job>/aside/…                      what was found there and is not whole
"""

import hashlib
import logging
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from sadi_bench.batches.job import Arrays
from sadi_bench.disk import write_atomically

log = logging.getLogger("sadi_bench")
NAME = re.compile(r"(\d{5,})-([0-9a-f]{32})\.safetensors")
ASIDE = "aside"
HALVINGS = "halvings"
JOB = "job"


class Shards:
    """Keep the batches of one job in a folder that no other process writes to."""

    def __init__(self, folder: Path, count: int, job: str) -> None:
        """Find which of `count` batches are there and whole; what is not is named and set aside."""
        self.folder, self.job = folder, job
        self._there: dict[int, Path] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            number = _number(path)
            if number is not None and number < count:
                self._there[number] = path
            elif path.name != ASIDE:
                _set_aside(path)

    def __contains__(self, number: int) -> bool:
        return number in self._there

    def read(self, number: int) -> Arrays:
        """Return the arrays of a batch that is there."""
        return load(self._there[number].read_bytes())

    def keep(self, number: int, arrays: Arrays, halvings: int) -> None:
        """Write a batch's arrays by rename; it is on the disk when this returns."""
        content = save(
            {name: array.copy(order="C") for name, array in arrays.items()},
            metadata={JOB: self.job, HALVINGS: str(halvings)},
        )
        path = self.folder / f"{number:05d}-{_digest(content)}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically({path: content})
        except OSError as error:  # a full disk does not say where
            raise OSError(error.errno, error.strerror, str(path)) from error
        self._there[number] = path


def kept_batches(folder: Path, key: str = "*") -> dict[str, dict[str, int]]:
    """Count, job by job, the batches that a run's folder of shards holds, and those halved."""
    found: dict[str, dict[str, int]] = {}
    for path in sorted(folder.glob(f"{key}/*.safetensors")):
        try:
            with safe_open(path, framework="np") as opened:
                facts = opened.metadata() or {}
        except (OSError, SafetensorError):
            continue
        each = found.setdefault(facts.get(JOB, ""), {"batches": 0, "halved": 0})
        each["batches"] += 1
        each["halved"] += facts.get(HALVINGS, "0") != "0"
    return found


def whole_batches(folder: Path) -> list[tuple[str, set[int]]]:
    """Name the jobs in a run's folder of shards, the newest first, and their batches; only look."""
    folders = [each for each in folder.glob("*") if each.is_dir()]
    found = []
    for each in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True):
        kept = kept_batches(each.parent, each.name)
        numbers = {_number(path) for path in each.glob("*.safetensors")}
        found += [(job, numbers - {None}) for job in kept]
    return found


def remove_shards(folder: Path) -> None:
    """Delete a finished run's shards; what cannot be deleted does no harm."""
    shutil.rmtree(folder, ignore_errors=True)


def _number(path: Path) -> int | None:
    """Return the batch that a whole shard holds; None for any other file."""
    match = NAME.fullmatch(path.name)
    with suppress(OSError):
        if match and _digest(path.read_bytes()) == match[2]:
            return int(match[1])
    return None


def _set_aside(path: Path) -> None:
    log.warning("%s: damaged, half written or foreign; set aside, and computed again", path)
    with suppress(OSError):
        (path.parent / ASIDE).mkdir(exist_ok=True)
        os.replace(path, path.parent / ASIDE / path.name)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
