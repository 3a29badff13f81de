"""Read the grid: one row per split × doc_id × cell."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from sadi_bench.errors import SettingError

UNSTEERED = 0
# Columns that every grid may have; what else is null for the unsteered cell is a hyper-parameter.
FIXED_COLUMNS = (
    *("split", "doc_id", "cell", "size", "gold", "choice_logprobs", "finite"),
    *("exact_match", "acc", "acc_norm"),
)


def parameter_columns(grid: pd.DataFrame) -> list[str]:
    """Name the method's hyper-parameters: the columns that the unsteered cell leaves empty."""
    unsteered = grid.loc[grid["cell"] == UNSTEERED]
    return [
        column
        for column in grid.columns
        if column not in FIXED_COLUMNS and unsteered[column].isna().all()
    ]


def cell_parameters(grid: pd.DataFrame) -> dict[int, dict[str, object]]:
    """Map each cell to its hyper-parameters as plain Python values; the unsteered cell has none.

    A column that can be null holds floats, so whole numbers are turned back into integers.
    """
    columns = parameter_columns(grid)
    cells = grid.drop_duplicates("cell").set_index("cell").sort_index()
    parameters = {
        int(cell): dict(zip(columns, map(_plain, row), strict=True))
        for cell, row in zip(cells.index, cells[columns].itertuples(index=False), strict=True)
    }
    return parameters | {UNSTEERED: {}}


def score_matrix(grid: pd.DataFrame, split: str, metric: str) -> pd.DataFrame:
    """Return the scores of one split as a table, `[docs, cell]`, sorted by both.

    Raises:
        ValueError: a cell lacks a document that another has, or has it twice; comparisons between
            cells would no longer be about the same documents.
    """
    rows = grid.loc[grid["split"] == split, ["doc_id", "cell", metric]]
    docs, doc_codes = np.unique(rows["doc_id"].to_numpy(), return_inverse=True)
    cells, cell_codes = np.unique(rows["cell"].to_numpy(), return_inverse=True)
    positions = doc_codes * len(cells) + cell_codes
    if len(np.unique(positions)) != len(rows) or len(rows) != len(docs) * len(cells):
        raise ValueError(
            f"The {split} split has {len(rows)} rows for {len(docs)} documents × {len(cells)} "
            f"cells = {len(docs) * len(cells)}: every cell needs every document once."
        )
    scores = np.empty(len(rows), dtype=np.float64)
    scores[positions] = rows[metric].to_numpy(dtype=np.float64, na_value=np.nan)
    return pd.DataFrame(
        scores.reshape(len(docs), len(cells)),
        index=pd.Index(docs, name="doc_id"),
        columns=pd.Index(cells, name="cell"),
    )


def measured(grid: pd.DataFrame, metrics: Iterable[str]) -> list[str]:
    """Keep the metrics that the grid has any value of; a text task has no acc, for example."""
    return [name for name in metrics if name in grid.columns and grid[name].notna().any()]


def check_measured(grid: pd.DataFrame, metric: str) -> None:
    """Raise a SettingError unless the grid has values of the metric to select by."""
    if not measured(grid, [metric]):
        others = measured(grid, ["acc", "acc_norm", "exact_match"])
        raise SettingError(
            f"select_by={metric}: not measured for this task; measured: {', '.join(others)}."
        )


def nonfinite_counts(grid: pd.DataFrame, split: str) -> pd.Series:
    """Count the documents of one split whose log-probabilities were not finite, by cell."""
    rows = grid.loc[grid["split"] == split]
    return (~rows["finite"].astype(bool)).groupby(rows["cell"]).sum()


def _plain(value: object) -> object:
    if pd.isna(value):
        return None
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value
