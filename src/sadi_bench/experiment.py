"""One run on one page: pairs → elements → every cell scored → a cell chosen → written down."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from sadi_bench.errors import SettingError
from sadi_bench.identity import code_of, identifier_of, other_code, plain
from sadi_bench.judging import check_judge, deciding_judge, judge_run
from sadi_bench.models.finetune import finetuned
from sadi_bench.models.loading import load_language_model, resolved
from sadi_bench.record import headline_cells, result_of, write_run, write_texts
from sadi_bench.results.paper import paper_metric
from sadi_bench.results.paper.matching import paper_names
from sadi_bench.results.reading import load_result
from sadi_bench.results.report import report
from sadi_bench.results.run_dir import is_complete, writing_run
from sadi_bench.results.selection import cells_in_the_race
from sadi_bench.results.tables import run_table
from sadi_bench.run_log import Clock, log_to
from sadi_bench.scoring.bridge import SteeredLM
from sadi_bench.scoring.frame import metrics_of, score_grid
from sadi_bench.scoring.judges.base import Judge
from sadi_bench.scoring.judges.choosing import resolved_judge
from sadi_bench.scoring.released import left_out, released_pairs, with_skipped
from sadi_bench.scoring.texts import headline_texts, text_grid, with_fluency
from sadi_bench.settings import RunConfig
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.contrast import encode_pairs
from sadi_bench.steering.methods import Method, method_of
from sadi_bench.tasks.pairs import ContrastivePair, content_free_pairs, contrastive_pairs
from sadi_bench.tasks.spec import RELEASED, TrailingNewline
from sadi_bench.tasks.task import PAPER_MATCH, Task, load_task

log = logging.getLogger("sadi_bench")
PAPER = "paper"


@dataclass(frozen=True)
class RunResult:
    """Hold a finished run: its directory and what result.json says."""

    path: Path
    result: Mapping[str, Any]


def run(config: RunConfig) -> RunResult:
    """Fit one method on one task and score its whole grid; or show the run that is there."""
    clock = Clock()
    method = method_of(config.method)
    config = dataclasses.replace(config, model=resolved(config.model))
    task = load_task(config.task, protocol=config.protocol, seed=config.seed)
    judge = resolved_judge(config.judge, task.name, config.task.data_dir)
    metric = selecting_metric(config, task)
    config = dataclasses.replace(config, select_by=metric, judge=judge)
    check_judge(config)
    identifier = identifier_of(config, task.fingerprint)
    path = Path(config.runs_dir).expanduser() / identifier
    remark = finished_before(path, config)
    if remark is None:
        compute(config, method, task, path, clock)
    judge_run(path, config)
    return shown(path, remark)


def finished_before(path: Path, config: RunConfig) -> str | None:
    """Say why the run at `path` is shown as it is; None where it must be computed."""
    if config.force or not is_complete(path):
        return None
    made_by = other_code(load_result(path), code_of(config))
    if made_by is None:
        return "this run was finished before; force=true computes it again"
    if config.keep:
        return f"keep=true: this run was made by {made_by}; force=true computes it again"
    log.info(f"this run was made by {made_by}; computing it again (keep=true shows it as it is)")
    return None


def compute(config: RunConfig, method: Method, task: Task, path: Path, clock: Clock) -> None:
    """Do all that a run is, and write its directory."""
    with writing_run(path.parent, path.name) as run_dir, log_to(run_dir.log_path):
        say(task.name, task.notes)
        judge = deciding_judge(config, task.metrics)
        clock.lap("data")
        steered, pairs, encoded, counts = fitted(config, method, task, clock)
        grid, texts = scored(config, task, steered, judge)
        if config.protocol == RELEASED:
            grid = with_skipped(grid, task, steered)
            counts["skipped"] = int(grid.loc[grid["skipped"], "doc_id"].nunique())
            say(task.name, notes := left_out(counts))
            task = dataclasses.replace(task, notes=(*task.notes, *notes))
        clock.lap("score")
        # Before choosing, which may fail; not earlier: till now force=true keeps the old result.
        run_dir.write_config(yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True))
        write_run(run_dir, task, steered, grid, pairs, encoded)
        lowest = less_is_better(config, task)
        found = report(grid, config.select_by, metrics_of(task), config.seed, lowest=lowest)
        rows = found["protocols"]
        if task.spec.generation_kwargs and not task.generates:
            texts = headline_texts(task, steered, headline_cells(rows).values())
        result = result_of(config, method, task, steered, grid, rows, counts)
        ours = {**found, "paper": paper_names(plain(config)), "code": code_of(config)}
        if texts is not None:
            ours |= write_texts(run_dir, with_fluency(texts, steered), rows)
            clock.lap("texts")
        if judge is not None:
            ours["judge_note"] = judge.note
        clock.lap("report")
        result["sadi_bench"] |= {**ours, "seconds": clock.seconds}
        run_dir.finish(result)


def fitted(
    config: RunConfig, method: Method, task: Task, clock: Clock
) -> tuple[SteeredLM, list[ContrastivePair], list[EncodedContrast], dict[str, int]]:
    """Load the model, fine-tune it if asked, and fit the method on the task's pairs."""
    lm = load_language_model(config.model)
    say(lm.name, lm.notes)
    clock.lap("model")
    newline = task.spec.trailing_newline == TrailingNewline.prompt
    steered = SteeredLM(
        lm, chat=config.model.chat_template, keep_newline=newline, token_budget=config.token_budget
    )
    template = steered.apply_chat_template if steered.chat else None
    pairs, encoded, counts = paired(config, task, steered, template)
    if config.finetune.kind != "none":
        answers = [(pair.prompt, pair.positive) for pair in encoded]
        lm = steered.lm = finetuned(config.model, config.finetune, answers, config.seed)
        clock.lap("finetune")
    if texts := method.content_free:
        pairs = content_free_pairs(task, pairs, texts, seed=config.seed, chat_template=template)
        encoded, counts["merged_pairs"] = encode_pairs(lm, pairs, newline)
    steered.intervention = method.fit(lm, encoded)
    clock.lap("identify")
    return steered, pairs, encoded, counts


def scored(
    config: RunConfig, task: Task, steered: SteeredLM, judge: Judge | None
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Score every cell on every document; of written answers also return the texts."""
    if not task.generates:
        return score_grid(task, steered), None
    race = partial(
        cells_in_the_race,
        metric=config.select_by,
        count=config.task.n_test_cells,
        lowest=less_is_better(config, task),
    )
    return text_grid(task, steered, race, judge)


def less_is_better(config: RunConfig, task: Task) -> bool:
    """Say whether the cell with the lowest value is the best: toxicity, for example."""
    return not task.metrics.get(config.select_by, True)


def paired(
    config: RunConfig, task: Task, steered: SteeredLM, template: Callable | None
) -> tuple[list[ContrastivePair], list[EncodedContrast], dict[str, int]]:
    """Make the task's pairs, as text and as tokens, and count them."""
    pairs = contrastive_pairs(task, seed=config.seed, chat_template=template)
    if config.protocol == RELEASED:
        return released_pairs(steered, pairs)
    encoded, merged = encode_pairs(steered.lm, pairs, steered.keep_newline)
    return pairs, encoded, {"pairs": len(pairs), "merged_pairs": merged}


def selecting_metric(config: RunConfig, task: Task) -> str:
    """Return the metric that chooses the cell: the one asked for, else the task's first.

    `paper` is the metric that arXiv 2410.12299 prints, which the released procedure always takes.

    Raises:
        SettingError: it is no metric of this task, or not one number a document.
    """
    select_by = config.select_by
    measured = [metric for metric in metrics_of(task) if metric in task.metrics]
    if config.protocol == RELEASED and select_by not in (None, PAPER):
        raise SettingError(
            f"select_by={select_by}: protocol=released chooses by the paper's metric; choose "
            "select_by=paper or null, or protocol=paper."
        )
    if select_by == PAPER or config.protocol == RELEASED:
        return paper_metric(measured)
    if select_by is None:
        return "acc" if "acc" in measured else measured[0]
    allowed = [*measured, *_metrics_of_log_odds(task)]
    if select_by not in allowed:
        raise SettingError(
            f"select_by={select_by}: a cell of task={task.name} can be chosen by "
            f"{', '.join(allowed)}; choose one of them, or null for the first."
        )
    return select_by


def _metrics_of_log_odds(task: Task) -> list[str]:
    """Name what the answers' log-probabilities tell beyond lm-eval's metrics.

    A constant an answer, and so acc_biased, needs the same answers in every document, and a select
    split to fit it on.
    """
    if PAPER_MATCH not in task.metrics:  # its answers are written, or scored in a way of its own
        return []
    if task.answers is None:
        return ["auc_pooled"]
    return ["auc", *(["acc_biased"] if task.select is not None else [])]


def say(name: str, notes: tuple[str, ...]) -> None:
    """Tell the user, and log.txt, what a reader of the numbers must know."""
    for note in notes:
        log.info("%s: %s", name, note)


def shown(path: Path, remark: str | None = None) -> RunResult:
    """Print a finished run's table and return it."""
    if remark:
        log.info(remark)
    result = load_result(path)
    print(run_table(result, path))  # noqa: T201
    return RunResult(path, result)
