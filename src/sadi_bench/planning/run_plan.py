"""The plan of one run: what it will do, what of it is done, and how long the rest takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from sadi_bench.batches.job import Job
from sadi_bench.batches.shards import whole_batches
from sadi_bench.experiment import SHARDS, Settled
from sadi_bench.models.skeleton import planned_on
from sadi_bench.planning.asked_jobs import fluency_job, scoring_jobs, telling_jobs
from sadi_bench.planning.batch_cost import NOTHING, Cost, batch_cost
from sadi_bench.planning.cards import Card
from sadi_bench.planning.calibrating import Trial
from sadi_bench.planning.network_size import NetworkSize
from sadi_bench.planning.room import Room
from sadi_bench.scoring.choices import ChoiceJob, choice_job
from sadi_bench.scoring.generation import TextJob, text_job
from sadi_bench.stages import Pairs
from sadi_bench.steering.activations import pair_job

PAIRS, CHOICES, TEXTS = "pairs", "choices", "texts"
"""Kinds of passes: each has a speed of its own."""


@dataclass(frozen=True)
class Part:
    """Hold one job of a run: `left` of `cost` is not done; `on_card` is what is left on a GPU.

    kind: whose speed it has.
    """

    name: str
    kind: str
    job: Job
    done: int
    cost: Cost
    left: Cost
    on_card: Cost

    @property
    def prompts(self) -> int:
        """Number of prompts."""
        return len(self.job.pairs if self.kind == PAIRS else self.job.requests)

    @property
    def batches(self) -> int:
        """Number of planned batches."""
        return len(self.job.batches)


@dataclass(frozen=True)
class RunPlan:
    """Hold the plan of one run.

    state: new, unfinished or finished. seconds: a part's name → its time here; empty where no pass
    could be timed. notes: what is assumed or not counted.
    """

    run: Settled
    state: str
    size: NetworkSize
    documents: int
    cells: int = 0
    parts: tuple[Part, ...] = ()
    training: Cost = NOTHING
    seconds: dict[str, float] = field(default_factory=dict)
    room: Room = Room()
    notes: tuple[str, ...] = ()

    @property
    def cost(self) -> Cost:
        """All that is left to compute."""
        return sum((part.left for part in self.parts), self.training)

    @property
    def here(self) -> float | None:
        """Seconds on this machine; None where they are not known."""
        if self.state == "finished":
            return 0.0
        return sum(self.seconds.values()) if self.seconds else None

    def on(self, card: Card, size: NetworkSize) -> float:
        """Return the seconds of the passes that are left on a GPU; the rest takes none there."""
        parts = [*(part.on_card for part in self.parts), self.training]
        return sum(card.seconds(cost, size) for cost in parts if cost.flops)


def parts_of(
    run: Settled, size: NetworkSize, pairs: Pairs, trial: Trial, kept: Sequence[bool]
) -> tuple[Part, ...]:
    """Count every job of a run; `kept` says which of the trial's jobs the cache has answered."""
    shards = whole_batches(run.path / SHARDS)
    parts = []
    for read, known in zip(trial.jobs, kept, strict=True):
        job = pair_job(pairs.tokens, read.read)
        parts.append(_part(job.name, PAIRS, job, size, shards, known=known))
    for name, kind, job in _scored(run, size, trial):
        parts.append(_part(name, kind, job, size, shards))
    return tuple(parts)


def _scored(run: Settled, size: NetworkSize, trial: Trial) -> Iterator[tuple[str, str, Job]]:
    lm, task, budget = size.lm, run.task, run.config.token_budget
    jobs = scoring_jobs(lm, task, trial.steering, budget)
    yield from ((job.name, _kind(job), job) for job in jobs)
    if task.spec.generation_kwargs and not task.generates:
        jobs = telling_jobs(lm, task, trial.steering, budget)
        yield from ((job.name, TEXTS, job) for job in jobs)
    if jobs and isinstance(jobs[-1], TextJob):
        job = fluency_job(lm, jobs[-1], budget)
        yield "likelihood of texts", PAIRS, job
    alone = trial.steering.only(min(1, len(trial.steering.cells) - 1))
    for other in run.others:
        for job in scoring_jobs(lm, other, alone, budget):
            yield f"{job.name} on {other.name}", _kind(job), job


def _kind(job: Job) -> str:
    return TEXTS if isinstance(job, TextJob) else CHOICES


def _part(
    name: str,
    kind: str,
    job: Job,
    size: NetworkSize,
    shards: list[tuple[str, set[int]]],
    *,
    known: bool = False,
) -> Part:
    """Count a job; the shards that are taken to be its own leave the list."""
    done = set(range(len(job.batches))) if known else _taken(job, shards)
    costs = [batch_cost(job, size, batch) for batch in job.batches]
    left = [cost for number, cost in enumerate(costs) if number not in done]
    share = len(left) / len(costs) if costs else 0
    elsewhere = _on_card(job, size) if share else NOTHING
    scaled = (round(share * each) for each in (elsewhere.passes, elsewhere.blocks,
                                               elsewhere.tokens, elsewhere.flops))  # fmt: skip
    on_card = Cost(*scaled, held=elsewhere.held)
    return Part(name, kind, job, len(done), sum(costs, NOTHING), sum(left, NOTHING), on_card)


def _taken(job: Job, shards: list[tuple[str, set[int]]]) -> set[int]:
    for found in shards:
        name, numbers = found
        if name == job.name and max(numbers, default=0) < len(job.batches):
            shards.remove(found)
            return numbers
    return set()


def _on_card(job: Job, size: NetworkSize) -> Cost:
    """Count a job as it would be planned for a GPU."""
    lm = planned_on(size.lm, "cuda")
    size, budget = replace(size, lm=lm), None
    if isinstance(job, ChoiceJob):
        job = choice_job(lm, job.requests, job.intervention, budget)
    elif isinstance(job, TextJob):
        cells = sorted({cell for batch in job.batches for _, some in batch for cell in some})
        job = text_job(lm, job.requests, job.intervention, cells, budget)
    return sum((batch_cost(job, size, batch) for batch in job.batches), NOTHING)
