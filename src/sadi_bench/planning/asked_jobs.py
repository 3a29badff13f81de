"""Which jobs a run asks for: its own code is asked, and answered with blanks instead of passes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sadi_bench.batches.executor import Executor
from sadi_bench.batches.job import Arrays, Job
from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.planning.batch_cost import told
from sadi_bench.record import HEADLINES
from sadi_bench.scoring.answers import ChoiceRequest
from sadi_bench.scoring.bridge import evaluate_cell
from sadi_bench.scoring.choices import ChoiceJob, choice_job
from sadi_bench.scoring.frame import named_splits
from sadi_bench.scoring.generation import Batch, TextJob
from sadi_bench.scoring.texts import headline_texts
from sadi_bench.stages import bridge
from sadi_bench.steering.activations import PairJob
from sadi_bench.steering.intervention import UNSTEERED_MODEL, Intervention
from sadi_bench.tasks.task import Task


@dataclass(frozen=True)
class AskedJobs(Executor):
    """Note the jobs that are asked for, and answer each batch with blanks of the right shape."""

    jobs: list[Job] = field(default_factory=list)

    def results(self, job: Job, lm: LanguageModel) -> Iterator[Arrays]:
        """Yield blanks; activations are drawn by lot, for what is ranked must differ."""
        self.jobs.append(job)
        for batch in job.batches:
            yield BLANKS[type(job)](job, lm, batch)


def scoring_jobs(
    lm: LanguageModel, task: Task, steering: Intervention, budget: int | None
) -> list[Job]:
    """Return the jobs that score a task's splits, the test split's last.

    A task that chooses has one job for both. Which cells go on to the test split is not known: as
    many of the first as will.
    """
    asked, splits = AskedJobs(), named_splits(task)
    steered = bridge(replace(lm, executor=asked), task, steering, budget)
    if not task.generates:
        evaluate_cell(steered, splits, 0, task.seed)
        return asked.jobs
    for name, split in splits.items():
        kept = task.spec.n_test_cells
        chosen = name == task.name and len(splits) > 1 and kept is not None
        cells = range(len(steering.cells))[: kept + 1 if chosen else None]
        evaluate_cell(steered.at(0, writing_cells=cells), {name: split}, 0, task.seed)
    return asked.jobs


def telling_jobs(
    lm: LanguageModel, task: Task, steering: Intervention, budget: int | None
) -> list[Job]:
    """Return the job in which a task that chooses writes as well, in as many cells as have rows."""
    asked = AskedJobs()
    steered = bridge(replace(lm, executor=asked), task, steering, budget)
    headline_texts(task, steered, range(len(steering.cells))[: len(HEADLINES)])
    return asked.jobs


def fluency_job(lm: LanguageModel, written: TextJob, budget: int | None) -> ChoiceJob:
    """Return the job that asks the unsteered model how likely texts are, all at full length."""
    cells: dict[int, set[int]] = {}
    for batch in written.batches:
        for i, some in batch:
            cells.setdefault(i, set()).update(some)
    requests = []
    for i, some in cells.items():
        asked = written.requests[i]
        texts = tuple((cell,) * asked.max_new_tokens for cell in sorted(some))
        requests.append(ChoiceRequest(asked.prompt, texts))
    return choice_job(lm, requests, UNSTEERED_MODEL, budget)


def _choices(job: ChoiceJob, lm: LanguageModel, batch: Sequence[int]) -> Arrays:  # noqa: ARG001
    answers = [answer for i in batch for answer in job.requests[i].answers]
    cells = len(job.intervention.cells)
    return {
        "logprobs": np.zeros((len(answers), cells), np.float32),
        "predicted": np.zeros((sum(map(len, answers)), cells), np.int32),
        "finite": np.ones((len(batch), cells), bool),
    }


def _texts(job: TextJob, lm: LanguageModel, batch: Batch) -> Arrays:  # noqa: ARG001
    rows = job.size(batch)
    return {
        "text": np.zeros(0, np.uint8),
        "text_ends": np.zeros(rows + 1, np.int64),
        "tokens": np.zeros(0, np.int64),
        "token_ends": np.zeros(rows + 1, np.int64),
        "finite": np.ones(rows, bool),
    }


def _activations(job: PairJob, lm: LanguageModel, batch: Sequence[int]) -> Arrays:
    """Tell what a reader gives by what it is told: answers, one site, sites, or nothing."""
    asks, rng, blocks = told(job), np.random.default_rng(0), lm.num_layers
    if "answers" in asks:
        return {"logprobs": rng.standard_normal((len(batch), len(asks["answers"])))}
    if "site" in asks:
        shapes = {asks["site"]: (len(batch), blocks)}
    elif "sites" in asks:
        shapes = {site: (len(batch), 2, blocks) for site in asks["sites"]}
    else:
        shapes = {site: (1, blocks) for site in Site}
    return {
        site.value: rng.standard_normal((*shape, lm.widths[site]), np.float32)
        for site, shape in shapes.items()
    }


BLANKS: dict[type[Job], Callable[..., Arrays]] = {
    ChoiceJob: _choices,
    TextJob: _texts,
    PairJob: _activations,
}
"""A kind of job → blanks in the shape of what its batches give."""
