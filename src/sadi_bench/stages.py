"""The stages of a run: prepare, fit, score; each takes frozen values and returns one.

prepare(config)  → Prepared      the task, the loaded model, the pairs as text and as tokens
fit(prepared)    → Intervention  what was learnt, frozen, with its grid of cells
score(prepared, intervention) → Scores   the grid in pieces, a row a split × document × cell
report(grid)     → results/report.py: a function of the grid alone
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sadi_bench.batches.executor import Executor
from sadi_bench.models.finetune import finetuned
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.loading import Models
from sadi_bench.results.selection import cells_in_the_race
from sadi_bench.scoring.bridge import SteeredLM
from sadi_bench.scoring.frame import doc_rows, score_grid
from sadi_bench.scoring.judges.base import Judge
from sadi_bench.scoring.judges.choosing import judge_of, resolved_judge
from sadi_bench.scoring.judges.spec import JudgeSpec
from sadi_bench.scoring.released import long_docs, released_pairs, with_skipped
from sadi_bench.scoring.scores import Scores
from sadi_bench.scoring.texts import text_grid
from sadi_bench.settings import RunConfig
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.contrast import encode_pairs
from sadi_bench.steering.intervention import Intervention
from sadi_bench.steering.method import Method
from sadi_bench.steering.methods import method_of
from sadi_bench.steering.origin import origin_of
from sadi_bench.tasks.pairs import ContrastivePair, content_free_pairs, contrastive_pairs
from sadi_bench.tasks.spec import RELEASED
from sadi_bench.tasks.task import Task

log = logging.getLogger("sadi_bench")
JUDGED = "judged"  # what task.process_results says where a judge gives the metric


@dataclass(frozen=True)
class Pairs:
    """Hold contrastive pairs as text and as tokens; `counts` says how many merged or were long."""

    texts: tuple[ContrastivePair, ...]
    tokens: tuple[EncodedContrast, ...]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Prepared:
    """Hold all that a method learns from and is measured on."""

    config: RunConfig
    method: Method
    task: Task
    lm: LanguageModel
    pairs: Pairs


def prepare(
    config: RunConfig, task: Task, models: Models, executor: Executor | None = None
) -> Prepared:
    """Load the model, fine-tune it if asked, and make the task's pairs.

    `executor` runs the batches of all that follows; None computes here and keeps nothing.
    """
    method = method_of(config.method)
    lm = models.load(config.model)
    say(lm.name, lm.notes)
    pairs = task_pairs(lm, task)
    if config.finetune.kind != "none":
        answers = [(pair.prompt, pair.positive) for pair in pairs.tokens]
        lm = finetuned(config.model, config.finetune, answers, config.seed, models)
    executor = executor or Executor()
    if executor.workers is not None:  # they have the GPUs; what this process does itself is light
        lm.network.to("cpu")
    lm = replace(lm, executor=executor)
    return Prepared(config, method, task, lm, pairs_for(method, lm, task, pairs))


def fit(prepared: Prepared) -> Intervention:
    """Learn from the pairs; what is returned knows where it comes from."""
    settings = {**prepared.config.method, **dataclasses.asdict(prepared.method)}
    return fit_pairs(
        prepared.method, settings, prepared.lm, prepared.pairs.tokens, prepared.task.name
    )


def score(prepared: Prepared, steering: Intervention, judge: Judge | None = None) -> Scores:
    """Score every cell on the task's documents; `judge` is the one that the metrics come from."""
    config = prepared.config
    return score_task(
        prepared.lm, prepared.task, steering, config.select_by, judge, config.token_budget
    )


def fit_pairs(
    method: Method,
    settings: Mapping[str, Any],
    lm: LanguageModel,
    pairs: Sequence[EncodedContrast],
    task: str = "",
) -> Intervention:
    """Let a method learn, and note the method's settings, the model and the task."""
    return replace(method.fit(lm, pairs), origin=origin_of(lm, settings, task))


def score_task(
    lm: LanguageModel,
    task: Task,
    steering: Intervention,
    select_by: str | None = None,
    judge: Judge | None = None,
    token_budget: int | None = None,
) -> Scores:
    """Score every cell on the select and the test split.

    Where the model writes its answers, the cells that write on the test split are the best of the
    select split by the metric `select_by`.
    """
    steered = bridge(lm, task, steering, token_budget)
    texts = None
    if task.generates:
        metric = select_by or next(iter(task.metrics))
        race = partial(
            cells_in_the_race,
            metric=metric,
            count=task.spec.n_test_cells,
            lowest=not task.metrics.get(metric, True),
        )
        pieces, texts, evaluated = text_grid(task, steered, race, judge)
    else:
        pieces, evaluated = score_grid(task, steered)
    docs = partial(doc_rows, task, steered)
    if task.protocol == RELEASED:
        pieces = partial(with_skipped, pieces, long_docs(docs()))
    return Scores(
        pieces, docs, evaluated, texts, measured=steered.measured(), merged=len(steered.merged)
    )


def own_judge(task: Task) -> Judge | None:
    """Load the judge that a task's metric comes from; None where lm-eval computes it."""
    if task.spec.process_results != JUDGED:
        return None
    folder = task.spec.data_dir
    return judge_of(resolved_judge(JudgeSpec("auto"), task.name, folder), folder)


def bridge(
    lm: LanguageModel, task: Task, steering: Intervention, token_budget: int | None = None
) -> SteeredLM:
    """Make the bridge to lm-eval for a task: it says where a prompt's last newline belongs."""
    return SteeredLM(lm, steering, keep_newline=task.keeps_newline, token_budget=token_budget)


def task_pairs(lm: LanguageModel, task: Task) -> Pairs:
    """Make a pair of every identify row, as the task's protocol has them."""
    texts = contrastive_pairs(task, seed=task.seed, chat_template=_template(lm))
    if task.protocol == RELEASED:
        texts, tokens, counts = released_pairs(lm, texts, task.keeps_newline)
        return Pairs(tuple(texts), tuple(tokens), counts)
    tokens, merged = encode_pairs(lm, texts, task.keeps_newline)
    return Pairs(tuple(texts), tuple(tokens), {"pairs": len(texts), "merged_pairs": merged})


def pairs_for(method: Method, lm: LanguageModel, task: Task, pairs: Pairs) -> Pairs:
    """Put blank texts in the documents' place for a method that asks for it."""
    blank = method.blank_texts()
    if not blank:
        return pairs
    texts = content_free_pairs(
        task, pairs.texts, blank, seed=task.seed, chat_template=_template(lm)
    )
    tokens, merged = encode_pairs(lm, texts, task.keeps_newline)
    return Pairs(tuple(texts), tuple(tokens), {**pairs.counts, "merged_pairs": merged})


def _template(lm: LanguageModel) -> Any:
    return lm.render_chat if lm.chat else None


def say(name: str, notes: Sequence[str]) -> None:
    """Tell the user, and log.txt, what a reader of the numbers must know."""
    for note in notes:
        log.info("%s: %s", name, note)
