"""Seconds of real passes at the run's own shapes: how fast this machine is.

pairs     a few from the middle of the plan; the method is fitted on them, so its cells and its
          first edited layers are about the run's
batches   of a job a part of the middle batch, once the machine is warm
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from sadi_bench.batches.executor import Executor
from sadi_bench.batches.job import Arrays, Job, fitted
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.planning.batch_cost import Cost, batch_cost
from sadi_bench.planning.network_size import NetworkSize
from sadi_bench.scoring.generation import TextJob
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.intervention import Intervention
from sadi_bench.steering.method import Method

SECONDS = 10.0
"""What calibrating takes, about; on a slow machine the smallest passes take longer."""

FEW_PAIRS, MOST_PAIRS = 4, 32
"""Pairs that every method can be fitted on; pairs that tell enough."""


@dataclass(frozen=True)
class Speed:
    """Say how long passes take here.

    flops: FLOPs a second. a_pass: seconds of each pass besides. share: what is run of that which
    is counted; texts are counted at their full length.
    """

    flops: float
    a_pass: float = 0.0
    share: float = 1.0

    def seconds(self, cost: Cost) -> float:
        """Return the time of some passes."""
        return self.share * (cost.passes * self.a_pass + cost.flops / self.flops)


@dataclass(frozen=True)
class Lap:
    """Hold one batch's seconds, its cost, and the share of its texts' full length."""

    seconds: float
    cost: Cost
    share: float


@dataclass(frozen=True)
class Stopwatch(Executor):
    """Compute batches here, keep nothing, and note the jobs and a lap a batch."""

    size: NetworkSize | None = None
    jobs: list[Job] = field(default_factory=list)
    laps: list[Lap] = field(default_factory=list)

    def results(self, job: Job, lm: LanguageModel) -> Iterator[Arrays]:
        """Yield every batch's arrays."""
        self.jobs.append(job)
        for batch in job.batches:
            started = time.perf_counter()
            arrays, _ = fitted(job, lm, batch, 0)
            seconds = time.perf_counter() - started
            cost = batch_cost(job, self.size, batch)
            self.laps.append(Lap(seconds, cost, _share(job, batch, arrays)))
            yield arrays

    @property
    def seconds(self) -> float:
        """All of them."""
        return sum(lap.seconds for lap in self.laps)

    @property
    def speed(self) -> float:
        """FLOPs a second."""
        return sum(lap.cost.flops for lap in self.laps) / self.seconds


@dataclass(frozen=True)
class Trial:
    """Hold a method fitted on a few pairs, and the jobs in which it read them.

    `speed` is FLOPs a second of these jobs, None where nothing was timed; `learning` the seconds a
    pair beside them.
    """

    steering: Intervention
    jobs: Sequence[Job]
    speed: float | None = None
    learning: float = 0.0


def timed_fit(
    lm: LanguageModel, size: NetworkSize, method: Method, pairs: Sequence[EncodedContrast]
) -> Trial:
    """Fit on a few pairs, then on as many as there is time for: the first passes are slow.

    The caches take no part: nothing is found there, and nothing is left.
    """
    trial, seconds = _timed_fit(lm, size, method, middle(pairs, FEW_PAIRS))
    room = int(FEW_PAIRS * 0.2 * SECONDS / seconds)
    if not trial.jobs or room < FEW_PAIRS:
        return trial
    return _timed_fit(lm, size, method, middle(pairs, min(room, MOST_PAIRS)))[0]


def _timed_fit(
    lm: LanguageModel, size: NetworkSize, method: Method, pairs: Sequence[EncodedContrast]
) -> tuple[Trial, float]:
    watch, started = Stopwatch(size=size), time.perf_counter()
    steering = method.fit(replace(lm, fingerprint="", executor=watch), pairs)
    seconds = time.perf_counter() - started
    learning = (seconds - watch.seconds) / max(len(pairs), 1)
    speed = watch.speed if watch.laps else None
    return Trial(steering, tuple(watch.jobs), speed, learning), seconds


def speed_of(lm: LanguageModel, size: NetworkSize, job: Job, dense: float | None = None) -> Speed:
    """Time a part of the middle batch, as much as there is time for.

    The part grows from one item, for the first passes are slow. Texts: the few rows of a part read
    the weights as often as the many of a batch, so `dense`, FLOPs a second of large passes, tells
    computing from what each pass takes besides.
    """
    batch, count, left = job.batches[len(job.batches) // 2], 1, 0.7 * SECONDS
    while True:
        lap = _lap(lm, size, job, batch[:count])
        left -= lap.seconds
        more = min(len(batch), int(count * left / lap.seconds))
        if more <= count:
            break
        count = more
    if not isinstance(job, TextJob):
        return Speed(lap.cost.flops / lap.seconds)
    flops = dense or lap.share * lap.cost.flops / lap.seconds
    besides = lap.seconds / lap.share - lap.cost.flops / flops
    return Speed(flops, max(besides, 0.0) / lap.cost.passes, lap.share)


def middle(pairs: Sequence[EncodedContrast], count: int) -> list[EncodedContrast]:
    """Take so many pairs from the middle, by the length of their prompts."""
    order = sorted(pairs, key=lambda pair: len(pair.prompt))
    first = max(0, (len(order) - count) // 2)
    return order[first : first + count]


def _lap(lm: LanguageModel, size: NetworkSize, job: Job, batch: Sequence) -> Lap:
    watch = Stopwatch(size=size)
    for _ in watch.results(replace(job, batches=(tuple(batch),)), lm):
        pass
    return watch.laps[0]


def _share(job: Job, batch: Sequence, arrays: Arrays) -> float:
    """Return how long the texts of a batch are, as a share of their full length."""
    if not isinstance(job, TextJob):
        return 1.0
    most = sum(job.requests[i].max_new_tokens * len(cells) for i, cells in batch)
    steps = arrays["token_ends"][-1] + job.size(batch)  # the end mark takes a step as well
    return min(1.0, float(steps) / most)
