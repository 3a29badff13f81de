"""The parts of a run: each a job, counted as it is planned, and what of it is done."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sadi_bench.batches.job import Job
from sadi_bench.batches.shards import whole_batches
from sadi_bench.experiment import SHARDS, Settled
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.planning.asked_jobs import fluency_job, scoring_jobs, telling_jobs
from sadi_bench.planning.batch_cost import NOTHING, Cost, batch_cost
from sadi_bench.planning.calibrating import Trial
from sadi_bench.planning.network_size import NetworkSize
from sadi_bench.scoring.choices import ChoiceJob, choice_job
from sadi_bench.scoring.generation import TextJob, text_job
from sadi_bench.stages import Pairs
from sadi_bench.steering.activations import PairJob, pair_job

PAIRS, CHOICES, TEXTS, LIKELIHOOD = "pairs", "choices", "texts", "likelihood"
"""Kinds of passes: each has a speed of its own."""


@dataclass(frozen=True)
class Part:
    """Hold one job of a run: `left` of `cost` is not done; `on_gpu` is what is left on a GPU.

    kind: whose speed it has.
    """

    name: str
    kind: str
    job: Job
    done: int
    cost: Cost
    left: Cost
    on_gpu: Cost

    @property
    def prompts(self) -> int:
        """Number of prompts."""
        return len(self.job.pairs if isinstance(self.job, PairJob) else self.job.requests)

    @property
    def batches(self) -> int:
        """Number of planned batches."""
        return len(self.job.batches)


def jobs_of(
    lm: LanguageModel, run: Settled, pairs: Pairs, trial: Trial
) -> list[tuple[str, str, Job]]:
    """Return every job of a run, with its name and its kind, as its own code asks for them."""
    steering, task, budget = trial.steering, run.task, run.config.token_budget
    found = [("", PAIRS, pair_job(pairs.tokens, read.read)) for read in trial.jobs]
    jobs = scoring_jobs(lm, task, steering, budget)
    if task.spec.generation_kwargs and not task.generates:
        jobs += telling_jobs(lm, task, steering, budget)
    found += [("", _kind(job), job) for job in jobs]
    if isinstance(jobs[-1], TextJob):
        found.append(("likelihood of texts", LIKELIHOOD, fluency_job(lm, jobs[-1], budget)))
    alone = steering.only(min(1, len(steering.cells) - 1))
    for other in run.others:
        jobs = scoring_jobs(lm, other, alone, budget)
        found += [(f"{job.name}, {other.name}", _kind(job), job) for job in jobs]
    return [(name or job.name, kind, job) for name, kind, job in found]


def parts_of(
    jobs: Sequence[tuple[str, str, Job]],
    run: Settled,
    size: NetworkSize,
    gpu_size: NetworkSize,
    is_known: Callable[[Job], bool],
) -> tuple[Part, ...]:
    """Count the jobs of a run; what `is_known` is done, and what lies in the run's shards."""
    shards = whole_batches(run.path / SHARDS)
    parts = []
    for name, kind, job in jobs:
        done = set(range(len(job.batches))) if is_known(job) else _taken(job, shards)
        costs = [batch_cost(job, size, batch) for batch in job.batches]
        left = [cost for number, cost in enumerate(costs) if number not in done]
        share = len(left) / len(costs) if costs else 0
        gpu = _on_gpu(job, gpu_size, run.config.token_budget).times(share)
        sums = sum(costs, NOTHING), sum(left, NOTHING)
        parts.append(Part(name, kind, job, len(done), *sums, gpu))
    return tuple(parts)


def _kind(job: Job) -> str:
    return TEXTS if isinstance(job, TextJob) else CHOICES


def _taken(job: Job, shards: list[tuple[str, set[int]]]) -> set[int]:
    """Return the batches of a job that shards hold; they leave the list.

    What was learnt is not known before the fit, so a job is told by its name.
    """
    for found in shards:
        name, numbers = found
        if name == job.name and max(numbers, default=0) < len(job.batches):
            shards.remove(found)
            return numbers
    return set()


def _on_gpu(job: Job, size: NetworkSize, budget: int | None) -> Cost:
    """Count a job as it would be planned for a GPU."""
    lm = size.lm
    if isinstance(job, ChoiceJob):
        job = choice_job(lm, job.requests, job.intervention, budget)
    elif isinstance(job, TextJob):
        cells = sorted({cell for batch in job.batches for _, some in batch for cell in some})
        job = text_job(lm, job.requests, job.intervention, cells, budget)
    return sum((batch_cost(job, size, batch) for batch in job.batches), NOTHING)
