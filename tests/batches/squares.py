"""A job without a model: squares numbers; some batches kill, fail, or run out of memory."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sadi_bench.batches.job import Job, halved, times_halved


@dataclass(frozen=True)
class Squares(Job):
    batches: Sequence[Sequence[int]]
    folder: Path
    """Notes of what was run; a file `kill-3` there ends the process that comes to batch [3, …]."""
    room: int = 99
    name: str = "squaring"
    unit: str = "number"

    def run(self, lm, batch, halvings):  # noqa: ARG002
        fatal = self.folder / f"kill-{batch[0]}"
        if fatal.exists():
            times = int(fatal.read_text()) - 1
            fatal.write_text(str(times)) if times else fatal.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if (self.folder / f"wrong-{batch[0]}").exists():
            raise ValueError(f"batch {batch[0]} is wrong")
        pieces = halved(batch, halvings)
        if max(map(len, pieces)) > self.room:
            raise torch.OutOfMemoryError("no room")
        with (self.folder / "ran.txt").open("a") as file:
            file.write(f"{batch[0]} {len(pieces)} {os.getpid()} {torch.get_num_threads()}\n")
        return {"squares": np.concatenate([np.square(piece) for piece in pieces])}

    def most_halvings(self, batch):
        return times_halved(len(batch))

    def key(self, lm):  # noqa: ARG002
        return "0123456789abcdef"


def ran(folder: Path) -> list[list[int]]:
    """Return a row a batch that was run: its first number, its pieces, the process, threads."""
    file = folder / "ran.txt"
    return (
        [[int(x) for x in line.split()] for line in file.read_text().splitlines()]
        if (file.exists())
        else []
    )
