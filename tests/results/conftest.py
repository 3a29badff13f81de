"""Grids made up for the tests, in the shape experiment.py hands over."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from sadi_bench.results.report import report

CELLS = [(top_k, strength) for top_k in (1, 2, 10) for strength in (5.0, 15.0)]
METRICS = ("acc", "acc_norm", "exact_match", "paper_match")


def protocols(grid: pd.DataFrame, metric: str = "acc", **settings: object) -> dict:
    """The rows of a grid's report."""
    return report(grid, metric, **settings)["protocols"]


def size_ranks(cells: list[tuple]) -> np.ndarray:
    """Rank cells by (top_k, |strength|, sign), cell 0 in front, as methods do."""
    keys = [(k, abs(s), s < 0) for k, s in cells]
    return np.array([0, *(1 + sorted(set(keys)).index(key) for key in keys)])


def grid_of(scores: dict[str, np.ndarray], cells=CELLS, **columns: object) -> pd.DataFrame:
    """Build a grid from `{split: scores [docs, 1 + cells]}`; all metrics have these scores."""
    parts, sizes = [], size_ranks(cells)
    for split, values in scores.items():
        values = np.asarray(values)
        assert values.shape[1] == len(cells) + 1
        doc, cell = (axis.ravel() for axis in np.indices(values.shape))
        part = {"split": split, "doc_id": doc, "group": [f"{split} {i}" for i in doc]}
        part |= {"cell": cell, "size": sizes[cell]}
        part |= {"top_k": np.array([np.nan, *(k for k, _ in cells)])[cell]}
        part |= {"strength": np.array([np.nan, *(s for _, s in cells)])[cell]}
        part |= dict.fromkeys(METRICS, values.ravel())
        part |= {"gold": 0, "choice_logprobs": [[-1.0, -2.5]] * len(doc), "finite": True}
        parts.append(pd.DataFrame(part | columns))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def make_grid() -> Callable[..., pd.DataFrame]:
    return grid_of


@pytest.fixture
def random_grid() -> Callable[[int], pd.DataFrame]:
    """Cells that differ truly, on few enough documents that luck decides as well."""

    def build(seed: int, n_select: int = 40, n_test: int = 50) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        rates = rng.uniform(0.4, 0.8, len(CELLS) + 1)
        sizes = {"select": n_select, "test": n_test}
        return grid_of(
            {s: (rng.random((n, len(rates))) < rates).astype(int) for s, n in sizes.items() if n}
        )

    return build
