"""Judge a run's texts: on the way, where the task's metric is a judge's, or as a step of its own.

The step of its own reads generations.jsonl of a finished run and adds judged-KIND.jsonl, so that a
judge never shares memory with the model and can be changed without writing again.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sadi_bench.batches.executor import Executor
from sadi_bench.batches.shards import remove_shards
from sadi_bench.errors import SettingError
from sadi_bench.identity import departures
from sadi_bench.models.loading import Models
from sadi_bench.provenance import source_digest
from sadi_bench.record import headline_cells
from sadi_bench.results.judged import judged_report
from sadi_bench.results.reading import TEXT_KEY, load_decisions, load_result, load_texts
from sadi_bench.results.run_dir import writing_run
from sadi_bench.scoring.judges.base import WORST, Generation, Judge
from sadi_bench.scoring.judges.choosing import OFFLINE, judge_fingerprint, judge_of
from sadi_bench.scoring.judges.truthfulqa import TruthfulQAJudges
from sadi_bench.settings import RunConfig
from sadi_bench.tasks.spec import OutputType

log = logging.getLogger("sadi_bench")
JUDGED = "judged"
"""The judges' key in result.json: what each of them said stands below its kind."""

CODE = "scoring/judges", "judging.py"
"""What computes decisions: where it changed, a judge that comes afterwards judges again."""


def deciding_judge(
    config: RunConfig, metrics: Mapping[str, bool], executor: Executor
) -> Judge | None:
    """Load the judge that the task's metrics come from; None where lm-eval computes them."""
    if not config.judge_decides:
        return None
    judge = judge_of(config.judge, config.task.data_dir)
    if judge is None or not set(metrics) <= set(judge.scores):
        raise SettingError(
            f"judge={config.judge.kind}: task={config.task.name} measures {', '.join(metrics)}, "
            "which it does not give; choose judge=auto."
        )
    return _run_by(executor, judge)


def check_judge(config: RunConfig) -> None:
    """Refuse a judge where the task asks the model for no texts."""
    writes = config.judge_decides or config.task.generation_kwargs
    writes = writes or config.task.output_type == OutputType.generate_until
    if config.judge.kind != "none" and not writes:
        raise SettingError(
            f"judge={config.judge.kind}: task={config.task.name} asks for no texts, so there is "
            "nothing to judge; choose judge=none."
        )


def judge_run(path: Path, config: RunConfig, models: Models, executor: Executor) -> None:
    """Judge a finished run's texts, unless this judge has; adds its decisions to the run.

    The model that wrote leaves `models` before a judge from a model is loaded. `executor` runs the
    judges that are language models.
    """
    kind = config.judge.kind
    if kind == "none" or config.judge_decides:
        return
    identity = _identity(config)
    if _has_judged(load_result(path), identity, config) and _decisions_whole(path, kind):
        return
    with writing_run(path.parent, path.name) as run_dir:
        result = load_result(path)  # not before: another judge may have been at work
        rows = load_texts(path, result)
        if kind not in OFFLINE:
            models.clear()
        judge = _run_by(executor, judge_of(config.judge, config.task.data_dir))
        texts = pd.DataFrame(rows)
        found = decisions(judge, texts)
        ours: dict[str, Any] = result["sadi_bench"]
        cells = headline_cells(ours["protocols"])
        report = judged_report(texts.assign(**found), judge.scores, cells, seed=config.seed)
        ours.setdefault(JUDGED, {})[kind] = {
            "judge": identity,
            "note": judge.note,
            "scores": list(judge.scores),
            "rows": report,
        }
        decided = texts[[*TEXT_KEY]].assign(**found)
        run_dir.add_judged(kind, decided.to_dict("records"), result)
    if executor.folder:
        remove_shards(executor.folder)


def _run_by(executor: Executor, judge: Judge) -> Judge:
    """Let the executor run a judge's batches, where it is a language model."""
    return replace(judge, executor=executor) if isinstance(judge, TruthfulQAJudges) else judge


def decisions(judge: Judge, texts: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return a judge's decisions [text]; what overflowed gets the worst, as in the grid.

    Such a text is empty, which a judge would take for true, or for not toxic.
    """
    asked = [Generation(row.question, row.text) for row in texts.itertuples()]
    overflowed = ~texts["finite"].to_numpy(dtype=bool)
    found = judge.judge(asked)
    for score in judge.scores:
        for name in (score, f"{score}_probability"):
            found[name] = np.where(overflowed, WORST[score], found[name])
    return found


def _identity(config: RunConfig) -> dict[str, Any]:
    """Name a judge's settings, the files that it read, and its code."""
    return {
        **departures(config.judge),
        "fingerprint": judge_fingerprint(config.judge, config.task.data_dir),
        "code": source_digest(*CODE),
    }


def _decisions_whole(path: Path, kind: str) -> bool:
    try:
        load_decisions(path, kind)
    except SettingError as error:
        log.warning("%s That is done now.", error)
        return False
    return True


def _has_judged(result: Mapping[str, Any], identity: Mapping[str, Any], config: RunConfig) -> bool:
    """Say whether a run has the decisions of this judge; keep=true takes those of other code."""
    known = result["sadi_bench"].get(JUDGED, {}).get(config.judge.kind, {}).get("judge", {})
    if config.keep and not config.force:
        known = known | {"code": identity["code"]}
    return known == identity
