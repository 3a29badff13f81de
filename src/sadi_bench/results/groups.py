"""Scores by group of documents: subjects, domains, languages."""

from collections.abc import Mapping, Sequence

import pandas as pd

from sadi_bench.grid_file import Columns
from sadi_bench.results.formatting import aligned, metric_name, percent
from sadi_bench.results.scored import Scored

ALL = "all"


def group_means(
    grid: Columns,
    docs: Sequence[Mapping[str, object]],
    column: str,
    cells: Mapping[str, int],
    metric: str = "acc",
    split: str = "test",
) -> pd.DataFrame:
    """Return the mean score of some cells in every group, and in all documents together.

    Groups are the values of `column` in `docs`; `cells` maps a name to a cell number. Columns are n
    and those names. Every document counts once, so the last row is weighted by the groups' sizes
    and is not the mean of the rows above it.

    Raises:
        ValueError: a scored document is not in `docs`, or has no group.
    """
    group_of = {doc["doc_id"]: doc.get(column) for doc in docs if doc["split"] == split}
    scores = Scored(grid, [metric]).matrix(split, metric)
    scores = scores[list(cells.values())].set_axis(list(cells), axis=1)
    groups = pd.Series(
        [group_of.get(doc) for doc in scores.index], index=scores.index, dtype=object
    )
    if groups.isna().any():
        raise ValueError(f"{groups.isna().sum()} of {len(groups)} documents have no {column}.")
    grouped = scores.groupby(groups.rename(column), sort=True)
    means = grouped.mean()
    means.insert(0, "n", grouped.size())
    means.loc[ALL] = [len(scores), *scores.mean()]
    return means.astype({"n": int})


def group_table(means: pd.DataFrame, metric: str = "acc") -> str:
    """Return the frame of `group_means` as text, values in percent."""
    header = [means.index.name or "", "n", *(f"{name} %" for name in means.columns[1:])]
    rows = [
        [str(group), str(int(row.iloc[0])), *map(percent, row.iloc[1:])]
        for group, row in means.iterrows()
    ]
    return "\n".join([f"{metric_name(metric)} by {header[0]}", *aligned([header, *rows])]) + "\n"
