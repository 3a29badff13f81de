"""The grid as arrays, and what a cell is worth on some of its documents.

A report's row is made of parts. A part is one cell on some documents: the held-out row is one part,
the cross-fitted row two (each half with the cell that the other half chose), a row of N random
draws N. The same parts with cell 0 are what the row is compared with.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa

from sadi_bench.grid_file import Columns
from sadi_bench.results.grid import UNSTEERED, cell_parameters, measured, of_cells
from sadi_bench.results.separation import (
    answer_auc,
    biased_choices,
    fitted_constants,
    pooled_auc,
)

AUC, POOLED_AUC, BIASED = "auc", "auc_pooled", "acc_biased"
CURVES: dict[str, Callable[..., np.ndarray]] = {AUC: answer_auc, POOLED_AUC: pooled_auc}
ANSWERS = "answers"
"""Key of grid.attrs: the answers' texts, where they are the same for all documents."""
NO_SELECT = "there is no select split to fit a constant on"
DIFFER = "the answers differ from document to document, so no constant belongs to an answer"


@dataclass(frozen=True)
class Part:
    """Name one cell, the documents `on` which it is measured, and those it is `fitted_on`.

    Documents are positions in `Scored`. `share`: the part's weight where several hold a document.
    """

    cell: int
    on: np.ndarray
    fitted_on: np.ndarray
    share: float = 1.0


class Scored:
    """Hold a grid as arrays over documents (of all splits, in order) and cells.

    Raises:
        ValueError: a cell lacks a document of a split that another cell has, or has one twice.
    """

    def __init__(self, grid: Columns, metrics: Iterable[str]) -> None:
        self.docs, doc_codes = _sorted_codes(grid["split"], grid["doc_id"])
        cells, cell_codes = np.unique(grid["cell"].to_numpy(), return_inverse=True)
        cell_codes = cell_codes.astype(np.int32)
        self.cells = [int(cell) for cell in cells]
        self._column = {cell: i for i, cell in enumerate(self.cells)}
        self._place = doc_codes, cell_codes
        self.splits = self.docs.get_level_values("split").to_numpy()
        self._check_complete()
        self.params = cell_parameters(grid)
        self.sizes = _sizes(grid, self.cells)
        self.finite = self._table(grid["finite"].to_numpy(dtype=bool), fill=False)
        self.scored = self._table(np.ones(len(doc_codes), dtype=bool), fill=False)
        names = measured(grid, dict.fromkeys(metrics))
        self._metrics = {
            name: self._table(grid[name].to_numpy(dtype=np.float64, na_value=np.nan), np.nan)
            for name in names
        }
        self.groups = self._own_groups(grid)
        self.skipped = self._of_docs(grid, "skipped").astype(bool) if "skipped" in grid else None
        self.answers: Sequence[str] | None = grid.attrs.get(ANSWERS)
        self.grid = grid
        self._fits: dict[tuple[int, bytes], tuple[float, np.ndarray]] = {}

    def _check_complete(self) -> None:
        docs, cells = self._place
        places = docs.astype(np.int64) * len(self.cells) + cells
        shape = len(self.docs), len(self.cells)
        counts = np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)
        for split in dict.fromkeys(self.splits):
            own = counts[self.splits == split]
            n_docs, n_cells = len(own), int(own.any(axis=0).sum())
            if own.sum() != n_docs * n_cells or own.max() > 1:
                raise ValueError(
                    f"The {split} split has {own.sum()} rows for {n_docs} documents × {n_cells} "
                    f"cells = {n_docs * n_cells}: every cell needs every document once."
                )

    def _table(self, values: np.ndarray, fill: object) -> np.ndarray:
        table = np.full((len(self.docs), len(self.cells)), fill, dtype=values.dtype)
        table[self._place] = values
        return table

    def _of_docs(self, grid: Columns, column: str) -> np.ndarray:
        """Read what every cell's row says alike of a document; its number where nothing is said."""
        if column not in grid:
            return np.arange(len(self.docs))
        values = np.empty(len(self.docs), dtype=object)
        values[self._place[0]] = grid[column].to_numpy(dtype=object)
        return values

    def _own_groups(self, grid: Columns) -> np.ndarray:
        """Name each document's group; `#<doc_id>` says that it is alone.

        Two splits may number their documents alike, so that name alone would join strangers.
        """
        groups = self._of_docs(grid, "group")
        for place, (split, doc_id) in enumerate(self.docs):
            if groups[place] == f"#{doc_id}":
                groups[place] = f"{split} #{doc_id}"
        return groups

    @cached_property
    def _choices(self) -> tuple[np.ndarray, np.ndarray]:
        """Gold [docs] and log-probabilities [docs cell answer], NaN beyond a document's answers."""
        values, widths = _lists(self.grid["choice_logprobs"])
        table = np.full((len(self.docs), len(self.cells), widths.max()), np.nan)
        docs, cells = self._place
        starts = np.cumsum(widths) - widths
        for answer in range(widths.max()):
            some = np.flatnonzero(widths > answer)
            table[docs[some], cells[some], answer] = values[starts[some] + answer]
        gold = np.zeros(len(self.docs), dtype=int)
        gold[docs] = self.grid["gold"].to_numpy(dtype=int)
        return gold, table

    @property
    def chooses(self) -> bool:
        """Say whether answers are chosen among given ones, by their log-probabilities alone."""
        return "choice_logprobs" in self.grid and "acc" in self._metrics

    @property
    def gold(self) -> np.ndarray:
        """The right answer's number, `[docs]`."""
        return self._choices[0]

    def logprobs(self, cell: int) -> np.ndarray:
        """Log-probabilities of one cell, `[docs answer]`."""
        return self._choices[1][:, self._column[cell]]

    def chosen(self, cell: int) -> np.ndarray:
        """Each document's likeliest answer, `[docs]`; ties to the first, as in lm-eval."""
        return np.argmax(np.nan_to_num(self.logprobs(cell), nan=-np.inf), axis=1)

    @cached_property
    def metrics(self) -> list[str]:
        """Name what can be reported: the grid's metrics, and what follows from the answers."""
        if not self.chooses:
            return list(self._metrics)
        return [*self._metrics, *((AUC, BIASED) if self.answers else (POOLED_AUC,))]

    def matrix(self, split: str, metric: str) -> pd.DataFrame:
        """Return a metric's scores on one split as a table, `[doc_id, cell]`."""
        docs = self.on(split)
        index = self.docs[docs].get_level_values("doc_id")
        return pd.DataFrame(self._metrics[metric][docs], index=index, columns=self.cells)

    def on(self, split: str) -> np.ndarray:
        """Positions of a split's documents."""
        return np.flatnonzero(self.splits == split)

    def cells_on(self, docs: np.ndarray) -> list[int]:
        """Name the cells, cell 0 included, that were scored on all these documents."""
        return [cell for cell in self.cells if self.scored_on(cell, docs)]

    def scored_on(self, cell: int, docs: np.ndarray) -> bool:
        """Say whether a cell was scored on all these documents."""
        return bool(self.scored[docs, self._column[cell]].all())

    def n_nonfinite(self, cell: int, docs: np.ndarray) -> int:
        """Count documents whose log-probabilities overflowed."""
        return int((~self.finite[docs, self._column[cell]]).sum())

    def vector(self, metric: str, part: Part) -> np.ndarray | None:
        """Return a part's score of every document of `part.on`; None where one is undefined."""
        if self.n_nonfinite(part.cell, part.on) and metric not in self._metrics:
            return None
        if metric == BIASED:
            return self._biased(part)
        values = self._metrics[metric][part.on, self._column[part.cell]]
        return None if np.isnan(values).any() else values

    def _biased(self, part: Part) -> np.ndarray | None:
        if not len(part.fitted_on) or self.n_nonfinite(part.cell, part.fitted_on):
            return None
        logprobs, key = self.logprobs(part.cell), (part.cell, part.fitted_on.tobytes())
        if key not in self._fits:
            some = part.fitted_on
            self._fits[key] = fitted_constants(logprobs[some], self.gold[some])
        chosen = biased_choices(logprobs[part.on], *self._fits[key])
        return (chosen == self.gold[part.on]).astype(float)

    def curve(self, metric: str, part: Part, weights: np.ndarray | None = None) -> np.ndarray:
        """Return a part's AUC under each row of `weights` [resample docs of the part]."""
        if self.n_nonfinite(part.cell, part.on):
            return np.full(1 if weights is None else len(weights), np.nan)
        logprobs = self.logprobs(part.cell)[part.on]
        return CURVES[metric](logprobs, self.gold[part.on], weights)

    def value(self, metric: str, part: Part) -> float | None:
        """Return one part's mean score, or its AUC; None where it is undefined."""
        if metric in CURVES:
            found = float(self.curve(metric, part)[0])
            return None if np.isnan(found) else found
        vector = self.vector(metric, part)
        return None if vector is None else float(vector.mean())

    def why_not(self, metric: str) -> str | None:
        """Say why a metric of answers has no value in this grid; None where it has one."""
        if metric == BIASED and not self.answers:
            return DIFFER
        return NO_SELECT if metric == BIASED and not len(self.on("select")) else None


def unsteered(parts: Iterable[Part]) -> list[Part]:
    """Return the same parts with the unsteered cell: what a row is compared with."""
    return [replace(part, cell=UNSTEERED) for part in parts]


def _sizes(grid: Columns, cells: Sequence[int]) -> dict[int, int]:
    """Read each cell's distance from doing nothing; a grid without it has its cells in order."""
    if "size" not in grid:
        return {cell: cell for cell in cells}
    found = of_cells(grid, "size")
    return {cell: int(found[cell]) for cell in cells}


def _sorted_codes(splits: pd.Series, doc_ids: pd.Series) -> tuple[pd.MultiIndex, np.ndarray]:
    """Sort distinct (split, doc_id) keys and number each row by them."""
    split_codes, split_names = pd.factorize(splits, sort=True)
    id_codes, ids = pd.factorize(doc_ids, sort=True)
    codes, rows = np.unique(split_codes * len(ids) + id_codes, return_inverse=True)
    keys = [split_names[codes // len(ids)], ids[codes % len(ids)]]
    return pd.MultiIndex.from_arrays(keys, names=["split", "doc_id"]), rows.astype(np.int32)


def _lists(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return a column of lists as their numbers, one after the other, and each list's length."""
    rows = pa.array(column, type=pa.list_(pa.float64()))
    rows = rows.combine_chunks() if isinstance(rows, pa.ChunkedArray) else rows
    return rows.flatten().to_numpy(zero_copy_only=False), rows.value_lengths().to_numpy()
