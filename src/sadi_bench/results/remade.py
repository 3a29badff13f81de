"""Make the report of a finished run again: from its grid and its config, without the model."""

import os
from typing import Any

from sadi_bench.results.grid import METRICS
from sadi_bench.results.reading import load_config, load_grid, load_result
from sadi_bench.results.report import report, report_of_grid


def report_of_run(path: str | os.PathLike) -> dict[str, Any]:
    """Return what `report` says of a finished run's grid.parquet today.

    config.yaml says which metric chose the cell, and the seed. The grid names its metrics; for one
    that does not, since an older version wrote it, they are taken from result.json.
    """
    config, grid = load_config(path), load_grid(path)
    metric, seed = config["select_by"], config["seed"]
    if METRICS in grid.attrs:
        return report_of_grid(grid, metric, seed)
    protocols = load_result(path)["sadi_bench"]["protocols"]
    metrics, lowest = protocols["unsteered"]["metrics"], bool(protocols.get("lower_is_better"))
    return report(grid, metric, list(metrics), seed, lowest=lowest)
