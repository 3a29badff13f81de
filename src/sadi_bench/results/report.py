"""All that is said of a scored grid: a function of the grid alone, without the model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sadi_bench.grid_file import Columns
from sadi_bench.results.answer_shares import answer_report
from sadi_bench.results.diagnosis import diagnosis
from sadi_bench.results.grid import METRICS as GRID_METRICS
from sadi_bench.results.grid import UNSTEERED
from sadi_bench.results.measuring import Measurer, documents
from sadi_bench.results.protocols import METRICS, Protocols
from sadi_bench.results.scored import BIASED, Part, Scored
from sadi_bench.results.statistics import N_RESAMPLES, bootstrap_interval


def report(
    grid: Columns,
    metric: str = "acc",
    metrics: Sequence[str] = METRICS,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
    lowest: bool = False,
) -> dict[str, Any]:
    """Return `protocols`, `cells`, and of chosen answers `answers` and `diagnosis`.

    Cells are chosen by `metric`; reported is every metric of `metrics` that the grid has, and of
    answers that are chosen among given ones `auc` (`auc_pooled`) and `acc_biased`. `lowest`: less
    of the metric is better. A row of `protocols` that the grid does not allow is None: without a
    select split, or without a steered cell. `cells` has one entry a cell: its parameters, its size,
    and the value of every metric on each split where it was scored. Values are fractions.
    """
    scored = Scored(grid, [metric, *metrics])
    chosen = Protocols(scored, metric, seed, n_resamples, lowest)
    rows = chosen.report()
    answers = answer_report(scored, chosen.parts)
    row = "heldout" if "heldout" in chosen.parts else "oracle"
    constant = None
    if row in chosen.parts and BIASED in scored.metrics:
        constant = against_constant(chosen.measurer, chosen.parts[row])
    return {
        "protocols": rows,
        "cells": cell_values(scored),
        "answers": answers,
        "diagnosis": _with_counts(diagnosis(rows, answers, constant), scored),
    }


def report_of_grid(grid: Columns, metric: str, seed: int = 0) -> dict[str, Any]:
    """Report on a grid that names its metrics and their directions, as every new one does."""
    higher = grid.attrs[GRID_METRICS]
    return report(grid, metric, list(higher), seed, lowest=not higher.get(metric, True))


def against_constant(measurer: Measurer, parts: Sequence[Part]) -> dict[str, object] | None:
    """Return the unsteered model with fitted constants less the steered one without, in acc."""
    scored = measurer.scored
    plain = measurer.vector(BIASED, [Part(UNSTEERED, parts[0].on, parts[0].fitted_on)])
    steered = measurer.vector("acc", parts)
    if plain is None or steered is None:
        return None
    difference = plain - steered
    interval = bootstrap_interval(
        difference,
        measurer.seed,
        measurer.n_resamples,
        bounds=(-1.0, 1.0),
        groups=scored.groups[documents(parts)],
    )
    return {"difference": float(difference.mean()), "difference_ci95": list(interval)}


def cell_values(scored: Scored) -> list[dict[str, Any]]:
    """Give every cell's value of every metric on each split where it was scored."""
    select = scored.on("select")
    cells = []
    for cell in scored.cells:
        entry: dict[str, Any] = {"cell": cell, "params": scored.params[cell]}
        entry["size"] = scored.sizes[cell]
        for split in ("select", "test"):
            docs = scored.on(split)
            if len(docs) and scored.scored_on(cell, docs):
                part = Part(cell, docs, select)
                entry[split] = {name: scored.value(name, part) for name in scored.metrics}
        cells.append(entry)
    return cells


def _with_counts(found: dict[str, object] | None, scored: Scored) -> dict[str, object] | None:
    """Count the steered cells whose AUC on the test split is below the unsteered model's."""
    if found is None:
        return None
    test = scored.on("test")
    part = {cell: Part(cell, test, np.array([], dtype=int)) for cell in scored.cells_on(test)}
    values = {cell: scored.value(str(found["curve"]), each) for cell, each in part.items()}
    before = values.pop(UNSTEERED)
    known = [value for value in values.values() if value is not None]
    if before is None:
        return found
    return found | {"cells_below": sum(value < before for value in known), "cells": len(known)}
