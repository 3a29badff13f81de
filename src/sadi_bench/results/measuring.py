"""Measure a row of the report: its value, its interval, and its difference from unsteered."""

from collections.abc import Sequence

import numpy as np

from sadi_bench.results.scored import CURVES, Part, Scored, unsteered
from sadi_bench.results.statistics import (
    TAILS,
    are_single,
    bootstrap_interval,
    is_binary,
    max_statistic_p_values,
    mcnemar_exact,
    mean_interval,
    resampled_weights,
)

CURVE_RESAMPLES = 1999
"""Most resamples of an AUC, each of which sorts nothing but sums over all documents."""
PAIRED = ("difference", "difference_ci95", "p_value", "test", "gained", "lost")


class Measurer:
    """Measure rows of one grid with one seed; a row is a list of parts (see `scored`)."""

    def __init__(self, scored: Scored, seed: int, n_resamples: int) -> None:
        self.scored, self.seed, self.n_resamples = scored, seed, n_resamples
        # Rows share their unsteered parts, and now and then a cell.
        self._areas: dict[tuple, tuple[float, np.ndarray]] = {}

    def measure(self, metric: str, parts: Sequence[Part], paired: bool) -> dict[str, object]:
        """Return value, n and ci95; `paired`: also the difference from the unsteered model."""
        n = len(documents(parts))
        curve = metric in CURVES
        found = (self._curve if curve else self._mean)(metric, parts, paired)
        if found is not None:
            return {"n": n} | found
        empty: dict[str, object] = {"value": None, "n": n, "ci95": None}
        if reason := self.scored.why_not(metric):
            empty["reason"] = reason
        return empty | (dict.fromkeys(PAIRED) if paired else {})

    def _mean(self, metric: str, parts: Sequence[Part], paired: bool) -> dict[str, object] | None:
        values = self.vector(metric, parts)
        if values is None:
            return None
        groups = self.scored.groups[documents(parts)]
        interval = mean_interval(values, groups, self.seed, self.n_resamples)
        row: dict[str, object] = {"value": float(values.mean()), "ci95": list(interval)}
        if not paired:
            return row
        before = self.vector(metric, unsteered(parts))
        if before is None:
            return row | dict.fromkeys(PAIRED)
        return row | paired_means(before, values, groups, self.seed, self.n_resamples)

    def vector(self, metric: str, parts: Sequence[Part]) -> np.ndarray | None:
        """Return a row's score of every document, in order; None where one is undefined."""
        total, shares = np.zeros(len(self.scored.docs)), np.zeros(len(self.scored.docs))
        for part in parts:
            values = self.scored.vector(metric, part)
            if values is None:
                return None
            total[part.on] += part.share * values
            shares[part.on] += part.share
        docs = documents(parts)
        return total[docs] / shares[docs]

    def adjusted(
        self, metric: str, parts: Sequence[Part], candidates: Sequence[int], raw: float | None
    ) -> float | None:
        """Correct a one-cell row's p-value for having chosen among `candidates` on its documents.

        Never below the raw p-value: the two come from different tests, and one cell is one cell.
        """
        if metric in CURVES or raw is None or len(parts) != 1:
            return None
        (part,) = parts
        cells = [Part(cell, part.on, part.fitted_on) for cell in candidates]
        before = self.vector(metric, unsteered(parts))
        vectors = [self.vector(metric, [each]) for each in cells]
        if before is None or any(vector is None for vector in vectors):
            return None
        differences = np.stack(vectors, axis=1) - before[:, None]
        settings = {"seed": self.seed, "n_resamples": self.n_resamples}
        groups = self.scored.groups[part.on]
        p_values = max_statistic_p_values(differences, groups=groups, **settings)
        return max(raw, float(p_values[list(candidates).index(part.cell)]))

    def _curve(self, metric: str, parts: Sequence[Part], paired: bool) -> dict[str, object] | None:
        """Measure an AUC; its interval resamples groups of documents, for both models alike."""
        docs = documents(parts)
        value, drawn = self.areas(metric, parts, docs)
        if np.isnan(value):
            return None
        row: dict[str, object] = {"value": value, "ci95": percentiles(drawn)}
        if not paired:
            return row
        before = self.areas(metric, unsteered(parts), docs)
        return row | paired_areas(before, (value, drawn))

    def areas(
        self, metric: str, parts: Sequence[Part], docs: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Return a row's AUC, and that in every resample; the same seed draws the same groups."""
        names = [(part.cell, part.share, part.on.tobytes()) for part in parts]
        key = (metric, docs.tobytes(), *names)
        if key not in self._areas:
            self._areas[key] = self._drawn_areas(metric, parts, docs)
        return self._areas[key]

    def _drawn_areas(
        self, metric: str, parts: Sequence[Part], docs: np.ndarray
    ) -> tuple[float, np.ndarray]:
        value = float(self._area(metric, parts, np.ones((1, len(self.scored.docs))))[0])
        groups, n = self.scored.groups[docs], min(self.n_resamples, CURVE_RESAMPLES)
        found = []
        for drawn in resampled_weights(len(docs), groups, self.seed, n):
            weights = np.zeros((len(drawn), len(self.scored.docs)))
            weights[:, docs] = drawn
            found.append(self._area(metric, parts, weights))
        return value, np.concatenate(found)

    def _area(self, metric: str, parts: Sequence[Part], weights: np.ndarray) -> np.ndarray:
        """Average the parts' AUCs by share and documents: cells' scores have no common scale."""
        total = mass = 0.0
        for part in parts:
            own = weights[:, part.on]
            weight = part.share * own.sum(axis=1)
            total = total + weight * self.scored.curve(metric, part, own)
            mass = mass + weight
        return total / mass


def paired_means(
    before: np.ndarray, after: np.ndarray, groups: np.ndarray | None, seed: int, n_resamples: int
) -> dict[str, object]:
    """Compare two scores of the same documents: difference, interval, p-value, gained and lost.

    Exact McNemar where scores are 0 or 1 and every document is its own group; else sign flips.
    """
    difference = after - before
    settings = {"seed": seed, "n_resamples": n_resamples, "groups": groups}
    interval = bootstrap_interval(difference, bounds=(-1.0, 1.0), **settings)
    found = {"difference": float(difference.mean()), "difference_ci95": list(interval)}
    binary = is_binary(before) and is_binary(after)
    p_value, gained, lost = mcnemar_exact(before, after) if binary else (None, None, None)
    test = "mcnemar_exact"
    if not (binary and are_single(groups)):
        p_value = float(max_statistic_p_values(difference[:, None], **settings)[0])
        test = "sign_flip" if are_single(groups) else "sign_flip_groups"
    return found | {"p_value": p_value, "test": test, "gained": gained, "lost": lost}


def paired_areas(
    before: tuple[float, np.ndarray], after: tuple[float, np.ndarray]
) -> dict[str, object]:
    """Compare two AUCs of the same resamples; there is no test, the interval says it."""
    difference = after[0] - before[0]
    if np.isnan(difference):
        return dict.fromkeys(PAIRED)
    interval = percentiles(after[1] - before[1])
    return dict.fromkeys(PAIRED) | {"difference": difference, "difference_ci95": interval}


def documents(parts: Sequence[Part]) -> np.ndarray:
    """Return the positions of a row's documents, in order."""
    return np.unique(np.concatenate([part.on for part in parts]))


def percentiles(values: np.ndarray) -> list[float] | None:
    """Return the 95 % interval; a resample without both classes has no AUC and does not count."""
    known = values[~np.isnan(values)]
    return [float(end) for end in np.quantile(known, TAILS)] if len(known) else None
