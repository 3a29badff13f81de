"""Compare two finished runs, or two cells, on the documents that both were measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sadi_bench.disk import RUNS
from sadi_bench.errors import SettingError
from sadi_bench.results.formatting import (
    aligned,
    metric_name,
    p_value,
    score,
    score_difference,
    score_interval,
    unit,
)
from sadi_bench.results.measuring import Measurer, paired_areas, paired_means
from sadi_bench.results.protocols import METRICS, STEERED
from sadi_bench.results.reading import Run, load_run
from sadi_bench.results.run_dir import run_folder
from sadi_bench.results.scored import CURVES, Part, Scored
from sadi_bench.results.statistics import N_RESAMPLES, random_draw_p_value

ROWS = ("unsteered", *STEERED)


@dataclass(frozen=True)
class Side:
    """Hold one run and the cells of it that are compared; `row` is what was asked for."""

    run: Run
    row: str
    scored: Scored
    cells: tuple[int, ...]

    @property
    def name(self) -> str:
        """Say which run and cells, for a table."""
        ours = self.run.result["sadi_bench"]
        return (
            f"{self.run.path.name}:{self.row} ({ours['task']}, {ours['model']}, {ours['method']})"
        )


def side_of(text: str, runs_dir: str | Path = RUNS) -> Side:
    """Find `RUN` or `RUN:CELL`: a folder or the name of one in `runs_dir`; a number or a row.

    Without a cell: the held-out one, else the oracle's, else the unsteered.
    """
    place, _, cell = (text, "", "") if Path(text).is_dir() else text.rpartition(":")
    place, cell = (place, cell) if place else (cell or text, "")
    run = load_run(run_folder(place, runs_dir))
    report = run.result["sadi_bench"]["protocols"]
    row = cell or next(r for r in ("heldout", "oracle", "unsteered") if report.get(r))
    scored = Scored(run.columns, [report["metric"], *METRICS])
    if row.isdigit():
        if int(row) not in scored.cells:
            raise SettingError(
                f"{text}: no cell {row}; the run has cells 0 to {max(scored.cells)}."
            )
        return Side(run, f"cell {row}", scored, (int(row),))
    if row not in ROWS or not report.get(row) or row == "crossfit":
        known = [r for r in ROWS if report.get(r) and r != "crossfit"]
        raise SettingError(f"{text}: no such row; choose a cell number or {', '.join(known)}.")
    return Side(run, row, scored, tuple(report[row]["cells"]))


def compare(
    before: Side, after: Side, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> dict[str, dict[str, object]]:
    """Return metric → before, after, n, difference, difference_ci95, p_value, gained, lost.

    `p_random` stands where one side is of random draws: the place of the other side among them.
    """
    shared = _shared_documents(before, after)
    found = {}
    for metric in before.scored.metrics:
        if metric in after.scored.metrics:
            row = _one(metric, before, after, shared, seed, n_resamples)
            if row is not None:
                found[metric] = {"n": len(shared[0])} | row
    return found


def _shared_documents(before: Side, after: Side) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions, in each side's documents, of the test documents that both have."""
    names = [side.run.result["sadi_bench"]["task"] for side in (before, after)]
    docs = [s.scored.docs[s.scored.on("test")] for s in (before, after)]
    both = docs[0].intersection(docs[1]).sort_values()
    if names[0] != names[1] or not len(both):
        raise SettingError(
            f"{before.name} and {after.name} share no test documents; compare runs of one task."
        )
    places = tuple(side.scored.docs.get_indexer(both) for side in (before, after))
    if before.scored.chooses and after.scored.chooses:
        golds = [s.scored.gold[at] for s, at in zip((before, after), places, strict=True)]
        if not np.array_equal(*golds):
            raise SettingError(
                f"{before.name} and {after.name}: the same document numbers have other right "
                "answers; the runs read different data."
            )
    return places


def _one(
    metric: str,
    before: Side,
    after: Side,
    shared: Sequence[np.ndarray],
    seed: int,
    n_resamples: int,
) -> dict[str, object] | None:
    sides = [
        (Measurer(side.scored, seed, n_resamples), _parts(side, docs), docs)
        for side, docs in zip((before, after), shared, strict=True)
    ]
    if metric in CURVES:
        areas = [measurer.areas(metric, parts, docs) for measurer, parts, docs in sides]
        row = {"before": areas[0][0], "after": areas[1][0]} | paired_areas(*areas)
    else:
        vectors = [measurer.vector(metric, parts) for measurer, parts, _ in sides]
        if any(vector is None for vector in vectors):
            return None
        groups = before.scored.groups[shared[0]]
        row = {"before": float(vectors[0].mean()), "after": float(vectors[1].mean())}
        row |= paired_means(*vectors, groups, seed, n_resamples)
    for draws, other in ((0, "after"), (1, "before")):
        measurer, parts, _ = sides[draws]
        if len(parts) > 1:
            values = [measurer.scored.value(metric, part) for part in parts]
            lowest = _less_is_better(before, metric)
            row["p_random"] = random_draw_p_value(row[other], values, lowest=lowest)
    return row


def _less_is_better(side: Side, metric: str) -> bool:
    report = side.run.result["sadi_bench"]["protocols"]
    return bool(report.get("lower_is_better")) and metric == report["metric"]


def _parts(side: Side, docs: np.ndarray) -> list[Part]:
    select = side.scored.on("select")
    return [Part(cell, docs, select) for cell in side.cells]


def compare_table(before: Side, after: Side, found: dict[str, dict[str, object]]) -> str:
    """Write a comparison as text, at most 100 columns wide."""
    with_random = any("p_random" in row for row in found.values())
    header = ["", "n", "A", "B", "B - A", "95 % interval", "p", "gained", "lost"]
    rows = [header + (["p, random"] if with_random else [])]
    for metric, row in found.items():
        line = [f"{metric_name(metric)}{unit(metric)}", str(row["n"])]
        line += [score(metric, row["before"]), score(metric, row["after"])]
        line += [score_difference(metric, row["difference"])]
        line += [score_interval(metric, row["difference_ci95"]), p_value(row["p_value"])]
        line += ["–" if row[key] is None else str(row[key]) for key in ("gained", "lost")]
        rows.append(line + ([p_value(row.get("p_random"))] if with_random else []))
    names = [f"A: {before.name}", f"B: {after.name}"]
    groups = ", of groups of documents that belong together" if _grouped(found) else ""
    note = f"p: paired on the same documents, exact McNemar or sign flips{groups}."
    return "\n".join([*names, "", *aligned(rows), "", note]) + "\n"


def _grouped(found: dict[str, dict[str, object]]) -> bool:
    return any(row.get("test") == "sign_flip_groups" for row in found.values())
