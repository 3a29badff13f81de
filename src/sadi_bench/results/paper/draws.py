"""Random draws as a distribution: where another method's value stands among them."""

from collections.abc import Mapping

import pandas as pd

from sadi_bench.results.paper.table_runs import Result, grid_of, setting_of, sizes_of

ROUNDING = 1e-9


def draws_of(result: Result, metric: str) -> list[float]:
    """Return a run's held-out values of a metric, one a random draw; empty without draws."""
    heldout = result["protocols"].get("heldout") or {}
    return list(heldout.get("draws", {}).get("values", {}).get(metric, ()))


def with_p_of_draws(frame: pd.DataFrame, results: Mapping[str, Result]) -> pd.DataFrame:
    """Fill in `p_random` = (1 + draws at least as good) / (1 + draws), for rows of one run.

    The draws are those of the same task, on the same documents, seeds and grid of cells.
    """
    one_run = frame[frame["n_runs"] == 1]
    drawn = [(row, results[row.runs]) for row in one_run[one_run["draws"].notna()].itertuples()]
    for row in one_run[one_run["draws"].isna()].itertuples():
        result = results[row.runs]
        for other, its_result in drawn:
            same = (row.task, row.metric, row.shots) == (other.task, other.metric, other.shots)
            if same and row.heldout is not None and _comparable(result, its_result):
                values = draws_of(its_result, row.metric)
                frame.at[row.Index, "p_random"] = _p_value(result, row, values)
    return frame


def _comparable(one: Result, other: Result) -> bool:
    """Say whether two runs differ in what their cells steer and in nothing else."""
    return (
        grid_of(one) == grid_of(other)
        and sizes_of(one)[:-1] == sizes_of(other)[:-1]
        and setting_of(one, method=False, seeds=True) == setting_of(other, method=False, seeds=True)
    )


def _p_value(result: Result, row: object, draws: list[float]) -> float:
    sign = -1 if result["protocols"].get("lower_is_better") else 1
    as_good = sum(sign * (value - row.heldout) >= -ROUNDING for value in draws)
    return (1 + as_good) / (1 + len(draws))
