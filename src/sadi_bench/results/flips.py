"""Which test documents steering turned from wrong to right, and from right to wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sadi_bench.errors import SettingError
from sadi_bench.results.grid import UNSTEERED
from sadi_bench.results.protocols import METRICS
from sadi_bench.results.reading import Run
from sadi_bench.results.scored import CURVES, Part, Scored
from sadi_bench.results.statistics import is_binary

EQUAL = 0.0005
"""Scores between 0 and 1 that are nearer to each other are the same: three decimals are shown."""


@dataclass(frozen=True)
class Flips:
    """Hold every test document's score without steering and in one cell.

    `row` names the row of the report that chose the cell. `metric` is the one that chose it, or
    acc where that one is no number a document (an AUC). `lowest`: less of it is better.
    """

    row: str
    cell: int
    metric: str
    lowest: bool
    doc_ids: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @property
    def gains(self) -> np.ndarray:
        """Whether a document's score became better (1), worse (-1) or stayed as it was (0)."""
        change = (self.before - self.after) if self.lowest else (self.after - self.before)
        return np.where(np.abs(change) <= EQUAL, 0, np.sign(change)).astype(int)

    @property
    def is_right_or_wrong(self) -> bool:
        """Whether a score of 1 means that the answer is right, and 0 that it is wrong."""
        return is_binary(self.before) and is_binary(self.after) and not self.lowest


def flips_of(run: Run) -> Flips:
    """Compare the unsteered model with the cell that the select split chose, else the oracle's.

    Of a row with a cell a random draw it is the first draw's. Documents that steered cells skip
    (protocol=released) are left out.

    Raises:
        SettingError: the run steers nothing.
    """
    report = run.result["sadi_bench"]["protocols"]
    row = next((row for row in ("heldout", "oracle") if report.get(row)), None)
    if row is None:
        raise SettingError(
            f"{run.path}: this run steers nothing, so it turned no document; choose docs=all."
        )
    scored = Scored(run.columns, [report["metric"], *report["unsteered"]["metrics"], *METRICS])
    docs, select, cell = scored.on("test"), scored.on("select"), report[row]["cells"][0]
    if scored.skipped is not None:
        docs = docs[~scored.skipped[docs]]
    parts = [Part(number, docs, select) for number in (UNSTEERED, cell)]
    metric, before, after = _by_document(scored, report["metric"], parts)
    lowest = metric == report["metric"] and bool(report.get("lower_is_better"))
    doc_ids = scored.docs[docs].get_level_values("doc_id").to_numpy()
    return Flips(row, cell, metric, lowest, doc_ids, before, after)


def _by_document(
    scored: Scored, chosen_by: str, parts: Sequence[Part]
) -> tuple[str, np.ndarray, np.ndarray]:
    """Return the first metric that is a number a document, and the scores of both parts.

    An AUC is none, nor is acc_biased of a cell whose constants could not be fitted.
    """
    for metric in dict.fromkeys([chosen_by, "acc", *scored.metrics]):
        if metric in scored.metrics and metric not in CURVES:
            before, after = (scored.vector(metric, part) for part in parts)
            if before is not None and after is not None:
                return metric, before, after
    raise ValueError("the grid has no metric that is a number a document")
