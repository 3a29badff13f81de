"""lm-eval's entry of a cell in its own schema, from lm-eval's own values a document."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pandas as pd
from lm_eval.api.metrics import stderr_for_metric

from sadi_bench.tasks.task import Task

STDERR = "_stderr"
BOOTSTRAP = 100_000  # lm-eval's own number, for aggregations that have no formula


def entry_of(
    task: Task, evaluated: Mapping[str, Any], frame: pd.DataFrame, cell: int, suffix: str
) -> dict[str, dict[str, Any]]:
    """Return what lm-eval would report of a cell on the test split, named task + `suffix`.

    `evaluated` is lm-eval's evaluation of cell 0, whose facts (configs, versions, sizes) hold for
    all. Values a document are lm-eval's, in the frame; they are aggregated by the task's own
    functions. A metric that the frame does not have is left out.
    """
    own, name = task.name, task.name + suffix
    found = {
        key: {name: deepcopy(value[own])}
        for key, value in evaluated.items()
        if isinstance(value, dict) and own in value
    }
    if cell == 0:
        return found
    rows = frame[(frame["split"] == "test") & (frame["cell"] == cell)]
    results = {"alias": name, "name": name} if "name" in found["results"][name] else {"alias": name}
    for key in found["results"][name]:
        metric, _, how = key.partition(",")
        if how and not metric.endswith(STDERR) and metric in rows:
            values = [float(value) for value in rows[metric]]
            aggregate = task.test.aggregation()[metric]
            stderr = stderr_for_metric(metric=aggregate, bootstrap_iters=BOOTSTRAP)
            results[key] = aggregate(values)
            results[f"{metric}{STDERR},{how}"] = (
                stderr(values) if stderr and len(values) > 1 else "N/A"
            )
    found["results"][name] |= results
    stays = {*results, "sample_len", "alias", "name"}
    found["results"][name] = {k: v for k, v in found["results"][name].items() if k in stays}
    return found
