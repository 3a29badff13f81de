"""Run a job's batches: what is kept is read, the rest is computed here or by workers, and kept."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from sadi_bench.batches.job import Arrays, Job, fitted
from sadi_bench.batches.shards import Shards
from sadi_bench.batches.stopping import finishing_first
from sadi_bench.heartbeat import heartbeat

if TYPE_CHECKING:
    from sadi_bench.models.language_model import LanguageModel

Keep = Callable[[int, Arrays, int], None]
"""What is done with a finished batch: its number, its arrays, how often it was halved."""


class Workers(ABC):
    """Compute batches in other processes."""

    @abstractmethod
    def compute(
        self, job: Job, lm: "LanguageModel", todo: Sequence[int], keep: Keep
    ) -> Iterator[Arrays]:
        """Yield the arrays of the batches `todo`, in that order; each is kept when it is done."""


@dataclass(frozen=True)
class Executor:
    """Say where batches are computed, and where each one's result is kept.

    folder: for shards, which no other process writes to; None keeps nothing. workers: None
    computes in this process. The results are the same.
    """

    folder: Path | None = None
    workers: Workers | None = None

    def results(self, job: Job, lm: "LanguageModel") -> Iterator[Arrays]:
        """Yield every batch's arrays, in the order of the plan."""
        key = job.key(lm) if self.folder else ""
        shards = Shards(self.folder / key, len(job.batches), job.name) if key else None
        todo = [n for n in range(len(job.batches)) if shards is None or n not in shards]
        sizes = [job.size(batch) for batch in job.batches]
        done = sum(sizes) - sum(sizes[number] for number in todo)
        settings = {"desc": job.name, "unit": job.unit, "disable": None}
        spent = _Spent(job, sum(sizes[number] for number in todo))
        with tqdm(total=sum(sizes), initial=done, **settings) as bar, heartbeat(spent.told):

            def keep(number: int, arrays: Arrays, halvings: int) -> None:
                if shards is not None:
                    shards.keep(number, arrays, halvings)
                bar.update(sizes[number])
                spent.done += sizes[number]

            compute = self.workers.compute if self.workers else compute_here
            computed, asked = compute(job, lm, todo, keep), set(todo)
            for number in range(len(job.batches)):
                # What was just computed is in the shards as well, but need not be read again.
                yield next(computed) if number in asked else shards.read(number)


class _Spent:
    """Count what is done of a job, for lines where no bar is drawn."""

    def __init__(self, job: Job, total: int) -> None:
        self.job, self.total, self.done, self.since = job, total, 0, time.monotonic()

    def told(self) -> str:
        """Say how much is done, and how long the rest will take."""
        seconds = time.monotonic() - self.since
        left = f", about {seconds / self.done * (self.total - self.done) / 60:.0f} min left"
        done = f"{self.done:,} of {self.total:,} ({self.job.unit})"
        return f"{self.job.name}: {done}, {seconds / 60:.0f} min{left if self.done else ''}"


def compute_here(
    job: Job, lm: "LanguageModel", todo: Sequence[int], keep: Keep
) -> Iterator[Arrays]:
    """Compute batches one after the other in this process."""
    halvings = 0
    for number in todo:
        with finishing_first():
            arrays, halvings = fitted(job, lm, job.batches[number], halvings)
            keep(number, arrays, halvings)
        yield arrays
