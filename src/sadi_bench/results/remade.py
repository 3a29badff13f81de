"""Make the report of a finished run again: from its grid and its config, without the model."""

import os
from collections.abc import Sequence
from typing import Any

import pandas as pd

from sadi_bench.results.grid import METRICS
from sadi_bench.results.reading import load_config, load_grid, load_result
from sadi_bench.results.report import report


def report_of_run(path: str | os.PathLike) -> dict[str, Any]:
    """Return what `report` says of a finished run's grid.parquet today.

    config.yaml says which metric chose the cell, and the seed. The grid names its metrics; for one
    that does not, since an older version wrote it, they are taken from result.json.
    """
    config, grid = load_config(path), load_grid(path)
    metrics, lowest = _metrics_of(path, grid, config["select_by"])
    return report(grid, config["select_by"], metrics, config["seed"], lowest=lowest)


def _metrics_of(path: str | os.PathLike, grid: pd.DataFrame, metric: str) -> tuple[Sequence, bool]:
    """Return a run's metrics, and whether less of the one that chooses is better."""
    if METRICS in grid.attrs:
        higher = grid.attrs[METRICS]
        return list(higher), not higher.get(metric, True)
    protocols = load_result(path)["sadi_bench"]["protocols"]
    return list(protocols["unsteered"]["metrics"]), bool(protocols.get("lower_is_better"))
