"""Choose a cell of the grid: held out, or as an oracle."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from sadi_bench.errors import SettingError
from sadi_bench.results.grid import UNSTEERED, check_measured
from sadi_bench.results.scored import Part, Scored


@dataclass(frozen=True)
class Choice:
    """A cell and how clearly it won on the documents it was chosen on.

    `n_candidates` counts the finite cells, `n_tied` those with the best value, the chosen one
    included; `runner_up` is the next best value, None when there is none.
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
    """Choose the steered cell with the best `metric` on `split`: the highest, or the `lowest`.

    - The unsteered cell is no candidate: it has its own row in every table, and a method that does
      harm should show it. (The row `heldout_abstain` lets it win.)
    - A cell with any non-finite row is no candidate.
    - Of tied cells the smallest intervention wins: the cell with the smallest `size` (its method's
      distance from doing nothing), then the lowest cell index.

    Raises:
        SettingError: no steered cell is finite, or `metric` was not measured.
    """
    scored = Scored(grid, [metric, "acc"])
    check_selectable(scored, metric)
    docs = scored.on(split)
    values = candidate_values(scored, metric, docs, docs)
    check_candidates(values, scored, split)
    return choose(scored, values, split, metric, len(docs), lowest)


def choose(
    scored: Scored,
    values: Mapping[int, float],
    split: str,
    metric: str,
    n: int,
    lowest: bool = False,
) -> Choice:
    """Choose among cells with known values; ties as `select_cell` says. `n`: documents."""
    best = min(values.values()) if lowest else max(values.values())
    tied = _tied(values, best)
    below = [value for cell, value in values.items() if cell not in tied]
    winner = _smallest(scored, tied)
    return Choice(
        cell=winner,
        params=scored.params[winner],
        split=split,
        metric=metric,
        value=float(best),
        n=n,
        n_candidates=len(values),
        n_tied=len(tied),
        runner_up=float(min(below) if lowest else max(below)) if below else None,
    )


def candidate_values(
    scored: Scored, metric: str, docs: np.ndarray, fitted_on: np.ndarray
) -> dict[int, float]:
    """Return the value on `docs` of every steered cell that is finite on all of them."""
    cells = [c for c in scored.cells_on(docs) if c != UNSTEERED and not scored.n_nonfinite(c, docs)]
    values = {cell: scored.value(metric, Part(cell, docs, fitted_on)) for cell in cells}
    return {cell: value for cell, value in values.items() if value is not None}


def cells_in_the_race(
    select: pd.DataFrame, metric: str, count: int | None, lowest: bool = False
) -> list[int]:
    """Name cell 0 and `count` cells of the select split, which `select_cell` would take in turn.

    None keeps every cell. `select` are the grid's rows of that split.
    """
    if count is None:
        return sorted(select["cell"].unique().tolist())
    scored = Scored(select, [metric])
    docs = scored.on("select")
    values, kept = candidate_values(scored, metric, docs, docs), []
    while values and len(kept) < count:
        best = min(values.values()) if lowest else max(values.values())
        kept.append(_smallest(scored, _tied(values, best)))
        del values[kept[-1]]
    return [UNSTEERED, *sorted(kept)]


def check_selectable(scored: Scored, metric: str) -> None:
    """Raise a SettingError unless the grid has values of the metric to select by."""
    if metric not in scored.metrics:
        check_measured(scored.grid, metric)
    if reason := scored.why_not(metric):
        raise SettingError(f"select_by={metric}: {reason}; choose acc, for instance.")


def check_candidates(values: Mapping[int, float], scored: Scored, split: str) -> None:
    """Raise a SettingError where there is no steered cell to choose."""
    if values:
        return
    steered = [cell for cell in scored.cells_on(scored.on(split)) if cell != UNSTEERED]
    if not steered:
        raise SettingError(f"split={split}: the grid has no steered cell to choose from there.")
    raise SettingError(
        f"All {len(steered)} steered cells gave non-finite numbers on the {split} split; choose a "
        "weaker intervention (SADI: method.strength), or model.dtype=float32."
    )


def _tied(values: Mapping[int, float], best: float) -> list[int]:
    # Means of equal counts are equal floats for 0/1 scores; graded ones may differ by rounding.
    return [cell for cell, value in values.items() if abs(value - best) <= 1e-12]


def _smallest(scored: Scored, cells: list[int]) -> int:
    return min(cells, key=lambda cell: (scored.sizes[cell], cell))
