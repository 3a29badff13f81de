"""What `import sadi_bench` offers: load, fit, score, run, compare, generate, apply.

lm = load_model("smollm2-135m")
task = load_task("copa", n_pairs=100)
steering = fit("sadi-head", lm, task, top_k=[2, 4], strength=[5, 20])
frame = score(lm, task, steering)
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedModel

from sadi_bench import experiment
from sadi_bench.applying import requests_behind
from sadi_bench.composing import chosen, composed
from sadi_bench.config import choices
from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.loading import load_language_model
from sadi_bench.results import compare as comparing
from sadi_bench.results.reading import Run
from sadi_bench.results.reading import load_run as read_run
from sadi_bench.scoring.generation import generate as write_texts
from sadi_bench.stages import fit_pairs, own_judge, pairs_for, score_task, task_pairs
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.applied import applied as steer_network
from sadi_bench.steering.contrast import encode_pairs
from sadi_bench.steering.intervention import UNSTEERED_MODEL, Intervention
from sadi_bench.steering.methods import method_of
from sadi_bench.steering.origin import check_model, check_network
from sadi_bench.steering.watch import check_unwatched
from sadi_bench.tasks.pairs import pairs_from_texts
from sadi_bench.tasks.task import Task
from sadi_bench.tasks.task import load_task as read_task

Cell = int | str
"""A cell's number, or the row of a run's report that chose it: "heldout", "oracle"."""


def load_model(name: str, **settings: Any) -> LanguageModel:
    """Load a model by the name of a config (configs/model), a hub name or a folder.

    `settings` are fields of `ModelSpec`, such as dtype, device or chat_template.
    """
    if name in choices("model"):
        return load_language_model(chosen("model", name, settings))
    return load_language_model(chosen("model", "custom", {"pretrained": name, **settings}))


def load_task(name: str, *, protocol: str = "heldout", seed: int = 0, **settings: Any) -> Task:
    """Read a task by the name of its config (configs/task) and draw its splits.

    `settings` are fields of `TaskSpec`, such as n_pairs, n_test, data_dir or fewshot.
    """
    return read_task(chosen("task", name, settings), protocol=protocol, seed=seed)


def fit(
    method: str,
    lm: LanguageModel,
    task: Task | None = None,
    *,
    pairs: Sequence[tuple[str, str, str]] | None = None,
    **settings: Any,
) -> Intervention:
    """Learn from a task's pairs, or from pairs of one's own: (prompt, positive, negative).

    `method` is the name of a config (configs/method), `settings` are the method's own. A space
    is put between a prompt and its positive or negative text where no white space stands there.
    """
    check_unwatched(lm.network)
    given = chosen("method", method, settings)
    learner = method_of(given)
    known = {**given, **asdict(learner)}
    if task is not None and pairs is None:
        found = pairs_for(learner, lm, task, task_pairs(lm, task))
        return fit_pairs(learner, known, lm, found.tokens, task.name)
    if pairs is None or task is not None:
        raise SettingError("fit: give a task, or pairs=[(prompt, positive, negative), ...].")
    return fit_pairs(learner, known, lm, _own_pairs(method, learner.blank_texts(), lm, pairs))


def _own_pairs(
    method: str, blank: Sequence[str], lm: LanguageModel, pairs: Sequence[tuple[str, str, str]]
) -> list[EncodedContrast]:
    if blank:
        raise SettingError(
            f"fit: method={method} asks about a task without its documents, and pairs of your own "
            "belong to none; give a task, or bias='prior'."
        )
    return encode_pairs(lm, pairs_from_texts(pairs))[0]


def score(
    lm: LanguageModel, task: Task, steering: Intervention, *, token_budget: int | None = None
) -> pd.DataFrame:
    """Score every cell on the task's select and test split: a row a split × document × cell.

    Raises:
        SettingError: the steering was learnt from another model.
    """
    check_model(steering.origin, lm)
    check_unwatched(lm.network)
    judge = own_judge(task)
    return score_task(lm, task, steering, judge=judge, token_budget=token_budget).whole()


def run(*overrides: str) -> Run:
    """Do what `sadi-bench OVERRIDES` does and return the finished run."""
    return read_run(experiment.run(composed(*overrides)).path)


def load_run(path: str | Path) -> Run:
    """Read a finished run's folder; every file is checked against its digest."""
    return read_run(path)


def compare(before: Run | str | Path, after: Run | str | Path) -> pd.DataFrame:
    """Compare two runs on the documents that both were measured on: a row a metric.

    A run may be named with a cell, as in "results/runs/51ad3bf86ebd:3" or "...:oracle".
    """
    first, second = (
        comparing.side_of(str(run.path if isinstance(run, Run) else run)) for run in (before, after)
    )
    return pd.DataFrame(comparing.compare(first, second)).T.rename_axis("metric")


def generate(
    lm: LanguageModel,
    prompts: str | Sequence[str],
    steering: Intervention | None = None,
    *,
    cell: Cell = "heldout",
    max_new_tokens: int = 40,
    until: Sequence[str] = (),
) -> list[str]:
    """Let the model write behind prompts, greedily; without steering as it is.

    Prompts are wrapped in the chat template where the model was loaded with chat_template=True.
    """
    check_unwatched(lm.network)
    alone: Intervention = UNSTEERED_MODEL
    if steering is not None:
        check_model(steering.origin, lm)
        alone = steering.only(steering.cell_of(cell))
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    requests = requests_behind(lm, texts, max_new_tokens, until)
    last = len(alone.cells) - 1
    return [found[last].text for found in write_texts(lm, requests, alone, [last])]


@contextmanager
def applied(
    network: PreTrainedModel,
    steering: Intervention,
    cell: Cell = "heldout",
    prompt_tokens: Sequence[int] | None = None,
) -> Iterator[None]:
    """Steer any transformers code inside the block: forward, generate, pipelines.

    See `sadi_bench.steering.applied` for where it edits. `prompt_tokens`: how many tokens of each
    row are the prompt, where a forward pass is given more than the prompt.
    """
    check_network(steering.origin, network)
    with steer_network(network, steering, steering.cell_of(cell), prompt_tokens):
        yield
