"""One run on one page: prepare → fit → score → report → written down."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sadi_bench.aside import delete_leftovers
from sadi_bench.batches.executor import Executor
from sadi_bench.batches.shards import kept_batches, remove_shards
from sadi_bench.choosing_metric import selecting_metric
from sadi_bench.disk import cache_folder
from sadi_bench.elsewhere import elsewhere, other_tasks
from sadi_bench.failing import failure_kept
from sadi_bench.grid_file import Columns
from sadi_bench.identity import code_of, identifier_of, other_code, plain
from sadi_bench.judging import check_judge, deciding_judge, judge_run
from sadi_bench.models.loading import resolved
from sadi_bench.record import headline_cells, result_of, write_run, write_texts
from sadi_bench.results.reading import check_run, load_result
from sadi_bench.results.report import report_of_grid
from sadi_bench.results.run_dir import RunDir, is_complete, writing_run
from sadi_bench.run_log import Clock, log_to
from sadi_bench.scoring.judges.choosing import resolved_judge
from sadi_bench.scoring.released import left_out
from sadi_bench.scoring.scores import Scores
from sadi_bench.scoring.texts import headline_texts, with_fluency
from sadi_bench.session import Session
from sadi_bench.settings import RunConfig
from sadi_bench.stages import Prepared, bridge, fit, prepare, say, score
from sadi_bench.steering.artefact import to_bytes
from sadi_bench.steering.intervention import Intervention
from sadi_bench.steering.methods import method_of
from sadi_bench.tasks.spec import RELEASED
from sadi_bench.tasks.task import Task, load_task

log = logging.getLogger("sadi_bench")
SHARDS = ".shards"
"""Folder of a run that is not finished: the results of its batches."""


@dataclass(frozen=True)
class RunResult:
    """Hold a finished run: its directory and what result.json says.

    `remark` says why it was not computed; None where it was.
    """

    path: Path
    result: Mapping[str, Any]
    remark: str | None = None


@dataclass(frozen=True)
class Settled:
    """Hold a run before it is computed: resolved config, tasks and directory."""

    config: RunConfig
    task: Task
    others: tuple[Task, ...]
    path: Path


def run(config: RunConfig, session: Session | None = None) -> RunResult:
    """Fit one method on one task and score its whole grid; or find the run that is there."""
    session = session or Session()
    found = settled(config, session)
    config, path = found.config, found.path
    remark = finished_before(path, config)
    if remark is None:
        compute(config, found.task, found.others, path, session)
    judge_run(path, config, session.models, executor_of(config, path, session))
    return RunResult(path, load_result(path), remark)


def settled(config: RunConfig, session: Session) -> Settled:
    """Read a run's tasks and name it; raises SettingError for what could not be run."""
    method_of(config.method)  # refuses wrong settings before anything is read
    config = dataclasses.replace(config, model=resolved(config.model))
    catalogue = session.catalogue if config.task.harness else None
    task = load_task(config.task, protocol=config.protocol, seed=config.seed, catalogue=catalogue)
    judge = resolved_judge(config.judge, task.name, config.task.data_dir)
    metric = selecting_metric(config, task)
    config = dataclasses.replace(config, select_by=metric, judge=judge)
    check_judge(config)
    others = other_tasks(config)
    data = "".join(each.fingerprint for each in (task, *others))
    path = Path(config.runs_dir).expanduser() / identifier_of(config, data)
    return Settled(config, task, others, path)


def finished_before(path: Path, config: RunConfig) -> str | None:
    """Say why the run at `path` is shown as it is; None where it must be computed.

    Raises:
        SettingError: a file of the run is damaged or edited.
    """
    if config.force or not is_complete(path):
        return None
    made_by = other_code(load_result(path), code_of(config))
    if made_by is None or config.keep:
        check_run(path, judged=False)
    if made_by is None:
        return "this run was finished before; force=true computes it again"
    if config.keep:
        return f"keep=true: this run was made by {made_by}; force=true computes it again"
    log.info(f"this run was made by {made_by}; computing it again (keep=true shows it as it is)")
    return None


def compute(
    config: RunConfig, task: Task, others: Sequence[Task], path: Path, session: Session
) -> None:
    """Do all that a run is, and write its directory."""
    clock = Clock()
    text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
    with (
        writing_run(path.parent, path.name) as run_dir,
        failure_kept(path, text),
        log_to(run_dir.log_path),
    ):
        delete_leftovers(cache_folder())
        say(task.name, task.notes)
        executor = executor_of(config, path, session)
        judge = deciding_judge(config, task.metrics, executor)
        prepared = prepare(config, task, session.models, executor)
        clock.lap("prepare")
        steering = fit(prepared)
        clock.lap("fit")
        scores = score(prepared, steering, judge)
        run_dir.write_config(text)
        write_run(run_dir, steering, scores, prepared.pairs)
        clock.lap("score")  # the metrics were computed while the grid was written
        found, chosen = reported(run_dir, config, steering)
        clock.lap("report")
        ours = {**found, "code": code_of(config)}
        ours |= described(run_dir, prepared, steering, scores, found["protocols"])
        clock.lap("texts")
        ours |= measured_elsewhere(run_dir, prepared, steering, chosen, others)
        clock.lap("elsewhere")
        if judge is not None:
            ours["judge_note"] = judge.note
        result = summed_up(run_dir, prepared, steering, scores, found["protocols"])
        ours |= {"seconds": clock.seconds, "batches": kept_batches(path / SHARDS)}
        result["sadi_bench"] |= ours
        run_dir.finish(result)
        remove_shards(path / SHARDS)


def reported(
    run_dir: RunDir, config: RunConfig, steering: Intervention
) -> tuple[dict[str, Any], dict[str, int]]:
    """Report on the grid that was written, and write what was learnt with the cells chosen."""
    found = report_of_grid(run_dir.grid, config.select_by, config.seed)
    chosen = headline_cells(found["protocols"])
    origin = dataclasses.replace(steering.origin, chosen=chosen)
    run_dir.write_steering(to_bytes(dataclasses.replace(steering, origin=origin)))
    return found, chosen


def summed_up(
    run_dir: RunDir,
    prepared: Prepared,
    steering: Intervention,
    scores: Scores,
    rows: Mapping[str, Any],
) -> dict[str, Any]:
    """Assemble result.json, with what a reader must know of the task."""
    grid = run_dir.grid
    return result_of(prepared, steering, scores, grid, rows, noted(prepared, grid))


def executor_of(config: RunConfig, path: Path, session: Session) -> Executor:
    """Keep the batches of a run in its directory, and compute them where the settings say."""
    return session.executor(path / SHARDS, config.workers, config.ray.address)


def described(
    run_dir: RunDir,
    prepared: Prepared,
    steering: Intervention,
    scores: Scores,
    rows: Mapping[str, Any],
) -> dict[str, Any]:
    """Write what the model wrote, and say how it reads; nothing where it was asked for no text.

    A multiple-choice task may ask the headline cells to answer in their own words.
    """
    task, lm, budget = prepared.task, prepared.lm, prepared.config.token_budget
    texts = scores.texts
    if task.spec.generation_kwargs and not task.generates:
        steered = bridge(lm, task, steering, budget)
        texts = headline_texts(task, steered, headline_cells(rows).values())
    return {} if texts is None else write_texts(run_dir, with_fluency(texts, lm, budget), rows)


def measured_elsewhere(
    run_dir: RunDir,
    prepared: Prepared,
    steering: Intervention,
    chosen: Mapping[str, int],
    others: Sequence[Task],
) -> dict[str, Any]:
    """Score the chosen cell on other tasks, and write their frames."""
    found = elsewhere(prepared, steering, chosen, others)
    for name, each in found.items():
        run_dir.write_also(name, [each.frame])
    return {"also": {name: each.numbers for name, each in found.items()}} if found else {}


def noted(prepared: Prepared, grid: Columns) -> tuple[str, ...]:
    """Return what a reader of the numbers must know of the task, and say what is new of it."""
    if prepared.config.protocol != RELEASED:
        return prepared.task.notes
    skipped = int(grid["doc_id"][grid["skipped"]].nunique())
    notes = left_out({**prepared.pairs.counts, "skipped": skipped})
    say(prepared.task.name, notes)
    return (*prepared.task.notes, *notes)
