"""What a judge says of the texts of the headline cells, beside the unsteered model's."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sadi_bench.results.measuring import paired_means
from sadi_bench.results.statistics import N_RESAMPLES, mean_interval

PRODUCT = "true_x_info"


def judged_report(
    texts: pd.DataFrame, scores: Sequence[str], cells: Mapping[str, int], seed: int = 0
) -> dict[str, dict[str, dict[str, object]]]:
    """Return row → score → value, interval, and its difference from the unsteered model.

    `texts` has columns split, doc_id, cell, where documents belong together also group, and one of
    0 or 1 for each of `scores`; the test split counts. Of TruthfulQA's two scores the product of
    the averages is added (arXiv 2410.12299).
    """
    test = texts[texts["split"] == "test"]
    tables = {score: test.pivot(index="doc_id", columns="cell", values=score) for score in scores}
    groups = None
    if "group" in test:
        groups = test.drop_duplicates("doc_id").set_index("doc_id")["group"].sort_index().to_numpy()
    report: dict[str, dict[str, dict[str, object]]] = {}
    for row, cell in cells.items():
        report[row] = {score: _one(table, cell, groups, seed) for score, table in tables.items()}
        if {"true", "info"} <= set(scores):
            product = report[row]["true"]["value"] * report[row]["info"]["value"]
            report[row][PRODUCT] = {"value": product, "n": len(tables["true"])}
    return report


def _one(table: pd.DataFrame, cell: int, groups: np.ndarray | None, seed: int) -> dict[str, object]:
    values = table[cell].to_numpy(dtype=float)
    found = {
        "value": float(values.mean()),
        "n": len(values),
        "ci95": list(mean_interval(values, groups, seed)),
    }
    if cell == 0:
        return found
    return found | paired_means(table[0].to_numpy(dtype=float), values, groups, seed, N_RESAMPLES)
