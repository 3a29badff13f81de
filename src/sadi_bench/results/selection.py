"""Choose a cell of the grid: held out, or as an oracle."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from sadi_bench.errors import SettingError
from sadi_bench.results.grid import (
    UNSTEERED,
    cell_parameters,
    check_measured,
    nonfinite_counts,
    score_matrix,
)


@dataclass(frozen=True)
class Choice:
    """A steered cell and how clearly it won on the split it was chosen on.

    `n_candidates` counts the finite steered cells, `n_tied` those with the best value, the chosen
    one included; `runner_up` is the next best value, None when there is none.
    """

    cell: int
    params: dict[str, object]
    split: str
    metric: str
    value: float
    n: int
    n_candidates: int
    n_tied: int
    runner_up: float | None

    def as_dict(self) -> dict[str, object]:
        """Return the fields as they stand in result.json."""
        return asdict(self)


def select_cell(
    grid: pd.DataFrame, split: str, metric: str = "acc", lowest: bool = False
) -> Choice:
    """Choose the steered cell with the best mean `metric` on `split`: the highest, or `lowest`.

    - The unsteered cell is no candidate. It has its own row in every table, and a method that does
      harm should show it.
    - A cell with any non-finite row is no candidate.
    - Of tied cells the smallest intervention wins: the lowest `size`, which the method ranks by the
      distance from doing nothing, then the lowest cell index.

    The default is option-restricted accuracy. The paper selects by exact match, which is 0 in every
    cell for a model that answers in another format than the task's; all cells would tie.

    Raises:
        SettingError: no steered cell is finite, or `metric` was not measured.
    """
    candidates = candidate_cells(grid, split, metric)
    means = score_matrix(grid, split, metric)[candidates].mean()
    best = means.min() if lowest else means.max()
    tied = _tied(means, best)
    below = means.drop(tied)
    winner = _smallest(tied, grid)
    return Choice(
        cell=winner,
        params=cell_parameters(grid)[winner],
        split=split,
        metric=metric,
        value=float(best),
        n=int(grid.loc[grid["split"] == split, "doc_id"].nunique()),
        n_candidates=len(means),
        n_tied=len(tied),
        runner_up=float(below.min() if lowest else below.max()) if len(below) else None,
    )


def cells_in_the_race(
    select: pd.DataFrame, metric: str, count: int | None, lowest: bool = False
) -> list[int]:
    """Name cell 0 and `count` cells of the select split, which `select_cell` would take in turn.

    None keeps every cell. `select` are the grid's rows of that split.
    """
    if count is None:
        return sorted(select["cell"].unique().tolist())
    means = score_matrix(select, "select", metric)[_finite_cells(select, "select", metric)].mean()
    kept: list[int] = []
    while len(means) and len(kept) < count:
        kept.append(_smallest(_tied(means, means.min() if lowest else means.max()), select))
        means = means.drop(kept[-1])
    return [UNSTEERED, *sorted(kept)]


def candidate_cells(grid: pd.DataFrame, split: str, metric: str) -> list[int]:
    """List the steered cells that are finite on every document of `split`.

    Raises:
        SettingError: there is none, or `metric` was not measured.
    """
    check_measured(grid, metric)
    nonfinite = nonfinite_counts(grid, split).drop(UNSTEERED, errors="ignore")
    if nonfinite.empty:
        raise SettingError(f"split={split}: the grid has no steered cell to choose from there.")
    candidates = _finite_cells(grid, split, metric)
    if not candidates:
        raise SettingError(
            f"All {len(nonfinite)} steered cells gave non-finite numbers on the {split} split; "
            "choose a weaker intervention (SADI: method.strength), or model.dtype=float32."
        )
    return candidates


def _finite_cells(grid: pd.DataFrame, split: str, metric: str) -> list[int]:
    nonfinite = nonfinite_counts(grid, split).drop(UNSTEERED, errors="ignore")
    undefined = score_matrix(grid, split, metric).isna().sum()
    return [int(c) for c in nonfinite.index if nonfinite[c] == 0 and undefined[c] == 0]


def _tied(means: pd.Series, best: float) -> pd.Index:
    # Means of equal counts are equal floats for 0/1 scores; graded ones may differ by rounding.
    return means.index[np.isclose(means, best, rtol=0, atol=1e-12)]


def _smallest(cells: pd.Index, grid: pd.DataFrame) -> int:
    sizes = grid.drop_duplicates("cell").set_index("cell")["size"]
    return int(min(cells, key=lambda cell: (sizes[cell], cell)))
