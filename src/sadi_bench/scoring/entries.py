"""lm-eval's entry of a cell in its own schema, from lm-eval's own values a document."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from lm_eval.api.metrics import stderr_for_metric

from sadi_bench.grid_file import Columns
from sadi_bench.tasks.task import Task

BOOTSTRAP = 100_000  # lm-eval's own number, for aggregations that have no formula


def entry_of(
    task: Task, evaluated: Mapping[str, Any], grid: Columns, cell: int, suffix: str
) -> dict[str, dict[str, Any]]:
    """Return what lm-eval would report of a cell on the test split, named task + `suffix`.

    `evaluated` is lm-eval's evaluation of cell 0, whose facts (configs, versions, sizes) hold for
    all. Values a document are lm-eval's, in the grid; they are aggregated by the task's own
    functions. A metric that the grid does not have is left out.
    """
    own, name = task.name, task.name + suffix
    found = {
        key: {name: deepcopy(value[own])}
        for key, value in evaluated.items()
        if isinstance(value, dict) and own in value
    }
    if cell == 0:
        return found
    before = found["results"][name]
    facts = {key: value for key, value in before.items() if "," not in key}
    names = {key: name for key in ("alias", "name") if key in facts}
    found["results"][name] = facts | names | _aggregated(task, before, grid, cell)
    return found


def _aggregated(task: Task, keys: Iterable[str], grid: Columns, cell: int) -> dict[str, Any]:
    """Aggregate every metric of lm-eval's `keys` (acc,none) that the grid has, as it does."""
    found: dict[str, Any] = {}
    here = (grid["split"] == "test") & (grid["cell"] == cell)
    for key in keys:
        metric, _, how = key.partition(",")
        if how and metric in grid:  # a standard error is no column
            values = [float(value) for value in grid[metric][here]]
            aggregate = task.test.aggregation()[metric]
            stderr = stderr_for_metric(metric=aggregate, bootstrap_iters=BOOTSTRAP)
            known = stderr is not None and len(values) > 1
            found[key] = aggregate(values)
            found[f"{metric}_stderr,{how}"] = stderr(values) if known else "N/A"
    return found
