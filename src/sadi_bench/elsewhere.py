"""What steering costs elsewhere: the chosen cell on test rows of other tasks, and the unsteered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from sadi_bench.errors import SettingError
from sadi_bench.results.report import report_of_grid
from sadi_bench.scoring.frame import metrics_of
from sadi_bench.settings import RunConfig
from sadi_bench.stages import Prepared, own_judge, say, score_task
from sadi_bench.steering.intervention import AnswerBias, Intervention
from sadi_bench.steering.methods import method_of
from sadi_bench.tasks.task import Task, load_task

STEERED = 1
"""The chosen cell's number where it stands alone beside the unsteered model."""


@dataclass(frozen=True)
class Elsewhere:
    """Hold what one other task says: the frame of two cells, and the report's numbers of it."""

    frame: pd.DataFrame
    numbers: Mapping[str, Any]


def other_tasks(config: RunConfig) -> tuple[Task, ...]:
    """Read the tasks of `also`; as many test rows of each as the run's own task has at most.

    Raises:
        SettingError: a task is named twice, or is the run's own; or the method learns constants
            of its own task's answers.
    """
    if config.also and issubclass(method_of(config.method).intervention, AnswerBias):
        raise SettingError(
            f"also={config.also[0].name}: a constant an answer belongs to the answers of task="
            f"{config.task.name}; leave also empty, or choose another method than calibrate."
        )
    found: list[Task] = []
    for spec in config.also:
        if spec.name == config.task.name or spec.name in {task.name for task in found}:
            raise SettingError(
                f"also={spec.name}: it is measured already; name other tasks than task="
                f"{config.task.name}, each once."
            )
        task = load_task(replace(spec, n_test=None), protocol="heldout", seed=config.seed)
        most = spec.n_test or config.task.n_test
        if most is not None and most < len(task.test.test_docs()):
            task = load_task(replace(spec, n_test=most), protocol="heldout", seed=config.seed)
        found.append(replace(task, select=None))
    return tuple(found)


def elsewhere(
    prepared: Prepared, steering: Intervention, chosen: Mapping[str, int], tasks: Sequence[Task]
) -> dict[str, Elsewhere]:
    """Score the held-out cell (else the oracle's) on the test rows of other tasks.

    `chosen`: a row of the report → its cell. Nothing is chosen here, so nothing flatters.
    """
    row = next((row for row in ("heldout", "oracle") if row in chosen), None)
    if not tasks or row is None:
        return {}
    alone, found = steering.only(chosen[row]), {}
    for task in tasks:
        say(task.name, task.notes)
        budget, judge = prepared.config.token_budget, own_judge(task)
        scores = score_task(prepared.lm, task, alone, judge=judge, token_budget=budget)
        frame = scores.whole()
        found[task.name] = Elsewhere(frame, _numbers(task, frame, row, chosen[row]))
    return found


def _numbers(task: Task, frame: pd.DataFrame, row: str, cell: int) -> dict[str, Any]:
    """Take both cells' numbers; of one steered cell the oracle's row is that cell's."""
    metrics = metrics_of(task)
    shown = "acc" if "acc" in metrics else metrics[0]
    rows = report_of_grid(frame, shown)["protocols"]
    # A row's cell 0 stays cell 0: a chosen cell that is the unsteered one has no row of its own.
    steered = rows["oracle"] or rows["unsteered"]
    return {
        "row": row,
        "cell": cell,
        "n": rows["unsteered"]["n"],
        "metric": shown,
        "chance": task.chance,
        "notes": list(task.notes),
        "unsteered": rows["unsteered"]["metrics"],
        "steered": steered["metrics"],
    }
