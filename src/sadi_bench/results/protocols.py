"""Report the unsteered model and the cells that each protocol chooses.

heldout: chosen on the select split, measured on the test split; the headline.
heldout_abstain: the same choice where the unsteered cell may win.
crossfit: chosen on one half of select ∪ test, measured on the other, and the other way round.
oracle: chosen on the test split it is measured on, as the paper does; an upper bound.

Where the grid has random draws, every draw chooses a cell of its own; a row is their mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import stdev

import numpy as np
import pandas as pd

from sadi_bench.results.grid import UNSTEERED
from sadi_bench.results.measuring import Measurer, documents
from sadi_bench.results.scored import Part, Scored
from sadi_bench.results.selection import (
    Choice,
    candidate_values,
    check_candidates,
    check_selectable,
    choose,
)
from sadi_bench.results.statistics import LEVEL

METRICS = ("acc", "acc_norm", "exact_match", "paper_match")
STEERED = ("heldout", "heldout_abstain", "crossfit", "oracle")
LABELS = {
    "heldout": "chosen on the select split, reported on the test split",
    "heldout_abstain": "as heldout, but the unsteered cell may be chosen",
    "crossfit": "chosen on one half of all documents, reported on the other, and vice versa",
    "oracle": "chosen on the test split it is reported on: an upper bound, not a result",
}
ORACLE_P_VALUE_NOTE = (
    "p_value ignores that the cell is the best of many on these very documents; "
    "p_value_adjusted corrects for it (max-statistic sign flips over all candidate cells)"
)


class Protocols:
    """Choose the cells of every row once; `parts` says what each row is made of.

    A row that the grid does not allow is absent: without a select split, or a steered cell.
    """

    def __init__(
        self, scored: Scored, metric: str, seed: int, n_resamples: int, lowest: bool
    ) -> None:
        check_selectable(scored, metric)
        self.scored, self.metric, self.lowest = scored, metric, lowest
        self.measurer = Measurer(scored, seed, n_resamples)
        self.test, self.select = scored.on("test"), scored.on("select")
        self.compared = self.test if scored.skipped is None else self._kept()
        self.parts: dict[str, list[Part]] = {"unsteered": [Part(UNSTEERED, self.test, self.select)]}
        self.choices: dict[str, list[Choice]] = {}
        self.draws: dict[str, list[object]] = {}  # the draw that each part is of; None: no draws
        if any(cell != UNSTEERED for cell in scored.cells):
            self._choose_all()

    def _kept(self) -> np.ndarray:
        """Leave out the documents that the released code skips when it steers."""
        return self.test[~self.scored.skipped[self.test]]

    def _choose_all(self) -> None:
        oracle, select, test = self.compared, self.select, self.test
        if len(select):
            self._choose("heldout", "select", [(select, select, test)])
            self._choose("heldout_abstain", "select", [(select, select, test)], abstain=True)
            if set(self.scored.cells_on(select)) == set(self.scored.cells_on(test)):
                one, other = self._halves()
                self._choose("crossfit", "halves", [(one, one, other), (other, other, one)])
        self._choose("oracle", "test", [(oracle, select, oracle)])

    def _choose(
        self,
        row: str,
        split: str,
        folds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
        abstain: bool = False,
    ) -> None:
        """Choose in every fold, and for every draw, on its first documents for its last ones."""
        self.parts[row], self.choices[row], self.draws[row] = [], [], []
        for chosen_on, fitted_on, measured_on in folds:
            values = candidate_values(self.scored, self.metric, chosen_on, fitted_on)
            check_candidates(values, self.scored, "test" if split == "test" else "select")
            nothing = self.scored.value(self.metric, Part(UNSTEERED, chosen_on, fitted_on))
            for draw, some in self._by_draw(values).items():
                if abstain and nothing is not None:
                    some = {UNSTEERED: nothing, **some}
                choice = choose(self.scored, some, split, self.metric, len(chosen_on), self.lowest)
                self.choices[row].append(choice)
                self.draws[row].append(draw)
                self.parts[row].append(Part(choice.cell, measured_on, fitted_on))

    def _by_draw(self, values: Mapping[int, float]) -> dict[object, dict[int, float]]:
        draws: dict[object, dict[int, float]] = {}
        for cell, value in values.items():
            draws.setdefault(self.scored.params[cell].get("draw"), {})[cell] = value
        return draws

    def _halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw groups into one half until it has half of the documents.

        A group is never cut, and neither half depends on any score.
        """
        groups = self.scored.groups
        names = np.array(sorted(set(groups.tolist()), key=str), dtype=object)
        np.random.default_rng(self.measurer.seed).shuffle(names)
        sizes = pd.Series(groups).value_counts()
        before = np.cumsum([0, *(sizes[name] for name in names)])[:-1]
        first = set(names[before < len(groups) / 2].tolist())
        inside = np.array([group in first for group in groups.tolist()])
        return np.flatnonzero(inside), np.flatnonzero(~inside)

    def report(self) -> dict[str, object]:
        """Measure all rows."""
        report: dict[str, object] = {
            "metric": self.metric,
            **({"lower_is_better": True} if self.lowest else {}),
            "level": LEVEL,
            "seed": self.measurer.seed,
            "n_resamples": self.measurer.n_resamples,
            "unsteered": self._row("unsteered"),
            **{row: self._row(row) if row in self.parts else None for row in STEERED},
        }
        return report | {"optimism": _optimism(report)}

    def _row(self, row: str) -> dict[str, object]:
        parts, choices = self.parts[row], self.choices.get(row, [])
        cells = [part.cell for part in parts]
        one = len(parts) == 1
        steered = row != "unsteered"
        found: dict[str, object] = {
            "cell": cells[0] if one else None,
            "cells": cells,
            "params": self.scored.params[cells[0]] if one else {},
            "n": len(documents(parts)),
            "n_nonfinite": sum(self.scored.n_nonfinite(p.cell, p.on) for p in parts),
            "select_values": self._select_values(cells[0]) if one else {},
            "metrics": {
                metric: self.measurer.measure(metric, parts, paired=steered)
                for metric in self.scored.metrics
            },
        }
        if steered:
            found |= {"label": LABELS[row], "selection": _selection(choices)}
        if row == "oracle":
            found["p_value_note"] = ORACLE_P_VALUE_NOTE
            self._adjust(found["metrics"], parts)
        if any(draw is not None for draw in self.draws.get(row, [])):
            found["draws"] = self._draws(parts, self.draws[row])
        return found

    def _select_values(self, cell: int) -> dict[str, float | None]:
        if not len(self.select) or not self.scored.scored_on(cell, self.select):
            return {}
        part = Part(cell, self.select, self.select)
        return {metric: self.scored.value(metric, part) for metric in self.scored.metrics}

    def _adjust(self, metrics: Mapping[str, dict], parts: Sequence[Part]) -> None:
        docs = parts[0].on
        candidates = list(candidate_values(self.scored, self.metric, docs, parts[0].fitted_on))
        for metric, found in metrics.items():
            found["p_value_adjusted"] = self.measurer.adjusted(
                metric, parts, candidates, found.get("p_value")
            )

    def _draws(self, parts: Sequence[Part], draws: Sequence[object]) -> dict[str, object]:
        """Give every draw's own value: of several folds, the mean over its documents."""
        by_draw: dict[object, list[Part]] = {}
        for part, draw in zip(parts, draws, strict=True):
            by_draw.setdefault(draw, []).append(part)
        values = {}
        for metric in self.scored.metrics:
            own = [self._value(metric, some) for some in by_draw.values()]
            if None not in own:
                values[metric] = own
        sds = {metric: stdev(own) if len(own) > 1 else 0.0 for metric, own in values.items()}
        return {"n": len(by_draw), "values": values, "sd": sds}

    def _value(self, metric: str, parts: Sequence[Part]) -> float | None:
        values = [self.scored.value(metric, replace(part, share=1.0)) for part in parts]
        if None in values:
            return None
        return float(np.average(values, weights=[len(part.on) for part in parts]))


def _selection(choices: Sequence[Choice]) -> dict[str, object]:
    """Describe how a row's cell was chosen; of several choices also each by itself."""
    each = [
        {key: value for key, value in choice.as_dict().items() if key not in ("cell", "params")}
        for choice in choices
    ]
    if len(each) == 1:
        return each[0]
    shared = {key: each[0][key] for key in ("split", "metric", "n_candidates")}
    return shared | {
        "choices": [
            {"cell": choice.cell, "params": choice.params, **one}
            for choice, one in zip(choices, each, strict=True)
        ]
    }


def _optimism(report: Mapping[str, object]) -> dict[str, float | None]:
    """Say how much choosing flatters: select over test, and oracle over held-out."""
    metric = report["metric"]

    def test_value(protocol: str) -> float | None:
        return report[protocol] and report[protocol]["metrics"][metric]["value"]

    def gap(high: float | None, low: float | None) -> float | None:
        return None if high is None or low is None else high - low

    heldout = test_value("heldout")
    chosen_at = report["heldout"] and report["heldout"]["selection"].get("value")
    return {
        "heldout_select_minus_test": gap(chosen_at, heldout),
        "oracle_minus_heldout": gap(test_value("oracle"), heldout),
    }
