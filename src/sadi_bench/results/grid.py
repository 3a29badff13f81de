"""Read the grid: one row per split × doc_id × cell."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from sadi_bench.errors import SettingError
from sadi_bench.grid_file import Columns

UNSTEERED = 0
PARAMETERS, METRICS = "parameters", "metrics"
"""Keys of grid.attrs: the hyper-parameters' columns; every metric and whether higher is better."""
# Columns that every grid may have. Of a grid that does not name its hyper-parameters, since an
# older version wrote it, they are the other columns that are null for the unsteered cell.
FIXED_COLUMNS = (
    *("split", "doc_id", "group", "cell", "size", "gold", "choice_logprobs", "predicted"),
    *("finite", "skipped", "acc", "acc_norm", "exact_match", "paper_match"),
)


def parameter_columns(grid: Columns) -> list[str]:
    """Name the columns that hold the method's hyper-parameters."""
    if PARAMETERS in grid.attrs:
        return list(grid.attrs[PARAMETERS])
    unsteered = grid["cell"] == UNSTEERED
    return [
        column
        for column in grid.columns
        if column not in FIXED_COLUMNS and grid[column][unsteered].isna().all()
    ]


def cell_parameters(grid: Columns) -> dict[int, dict[str, object]]:
    """Map each cell to its hyper-parameters as plain Python values; the unsteered cell has none.

    A column that can be null holds floats, so whole numbers are turned back into integers.
    """
    columns = {name: of_cells(grid, name) for name in parameter_columns(grid)}
    parameters = {
        cell: {name: _plain(values[cell]) for name, values in columns.items()}
        for cell in of_cells(grid, "cell")
    }
    return parameters | {UNSTEERED: {}}


def of_cells(grid: Columns, name: str) -> dict[int, object]:
    """Read a column that is the same on all documents: each cell's value, from its first row."""
    cells = grid["cell"]
    first = ~cells.duplicated()
    return dict(sorted(zip(cells[first].tolist(), grid[name][first].tolist(), strict=True)))


def measured(grid: Columns, metrics: Iterable[str]) -> list[str]:
    """Keep the metrics that the grid has any value of; a text task has no acc, for example."""
    return [name for name in metrics if name in grid and grid[name].notna().any()]


def check_measured(grid: Columns, metric: str) -> None:
    """Raise a SettingError unless the grid has values of the metric to select by."""
    if not measured(grid, [metric]):
        others = measured(grid, ["acc", "acc_norm", "exact_match", "paper_match"])
        raise SettingError(
            f"select_by={metric}: not measured for this task; measured: {', '.join(others)}."
        )


def _plain(value: object) -> object:
    if pd.isna(value):
        return None
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value
