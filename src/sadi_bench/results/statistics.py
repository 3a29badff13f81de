"""Intervals and tests for scores measured on the same documents.

Documents that share a premise, passage or twin are not independent. `groups` [docs] names the group
of each document; a group is resampled, and its sign flipped, as a whole. None means that every
document is a group of its own.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
N_RESAMPLES = 9999
# Resamples are drawn this many at a time, so that MMLU's 12,178 documents need 25 MB and not 1 GB.
AT_ONCE = 500
WEIGHTS_AT_ONCE = 50
"""Resamples whose weights are handed out together; an AUC needs several numbers for each."""


def mean_interval(
    values: ArrayLike,
    groups: ArrayLike | None = None,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> tuple[float, float]:
    """Return the 95 % interval of the mean of scores between 0 and 1, `[docs]`.

    Wilson's where every score is 0 or 1 and every document is its own group; else the bootstrap.
    """
    values = _finite_vector(values)
    if is_binary(values) and are_single(groups):
        interval = binomtest(int(values.sum()), len(values)).proportion_ci(LEVEL, "wilson")
        return float(interval.low), float(interval.high)
    return bootstrap_interval(values, seed, n_resamples, groups=groups)


def bootstrap_interval(
    values: ArrayLike,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
    bounds: tuple[float, float] = (0.0, 1.0),
    groups: ArrayLike | None = None,
) -> tuple[float, float]:
    """Return the percentile bootstrap 95 % interval of the mean of `values`, `[docs]`.

    Groups are drawn with replacement; the mean is over the documents drawn. Groups with the same
    sum and size are drawn together, by a multinomial: the same distribution at a fraction of the
    cost.

    Where all values are equal every resample is equal too, and the bootstrap would claim certainty.
    Then the interval is Clopper-Pearson's: at most `1 - 0.025 ** (1 / groups)` of the population
    may differ, and may lie as far away as `bounds`, the smallest and largest value possible.
    """
    values = _finite_vector(values)
    sums = group_sums(values[:, None], groups)[:, 0]
    sizes = group_sums(np.ones((len(values), 1)), groups)[:, 0]
    if np.ptp(values) == 0:
        unseen = 1 - TAILS[0] ** (1 / len(sums))
        low, high = (values[0] + unseen * (bound - values[0]) for bound in bounds)
        return float(low), float(high)
    kinds, counts = np.unique(np.column_stack([sums, sizes]), axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(sums), counts / len(sums), size=n_resamples)
    low, high = np.quantile(draws @ kinds[:, 0] / (draws @ kinds[:, 1]), TAILS)
    return float(low), float(high)


def resampled_weights(
    n_docs: int, groups: ArrayLike | None = None, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> Iterator[np.ndarray]:
    """Yield how often each resample draws each document, `[resample docs]`, some at a time."""
    codes = np.arange(n_docs) if groups is None else _codes(groups)
    n_groups, rng = int(codes.max()) + 1, np.random.default_rng(seed)
    for start in range(0, n_resamples, WEIGHTS_AT_ONCE):
        size = min(WEIGHTS_AT_ONCE, n_resamples - start)
        counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=size)
        yield counts[:, codes].astype(np.float64)


def mcnemar_exact(before: ArrayLike, after: ArrayLike) -> tuple[float, int, int]:
    """Return the two-sided exact McNemar p-value, how many documents were gained, how many lost.

    `before` and `after` are 0/1 for the same documents in the same order. Gained and lost are the
    discordant counts b and c of the textbooks; without any the p-value is 1.
    """
    before, after = _finite_vector(before), _finite_vector(after)
    if before.shape != after.shape:
        raise ValueError(f"{len(before)} documents before, {len(after)} after: not the same ones.")
    if not (is_binary(before) and is_binary(after)):
        raise ValueError("McNemar's test takes right (1) or wrong (0), not graded scores.")
    gained, lost = int((after > before).sum()), int((after < before).sum())
    if gained + lost == 0:
        return 1.0, 0, 0
    return float(binomtest(gained, gained + lost).pvalue), gained, lost


def max_statistic_p_values(
    differences: ArrayLike,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
    groups: ArrayLike | None = None,
) -> np.ndarray:
    """Return each cell's two-sided p-value corrected for having looked at all cells, `[cell]`.

    `differences` is steered minus unsteered, `[docs, cell]`. Under "no cell does anything" a
    group's whole rows of differences may as well have the other sign. One sign per group keeps the
    cells' correlation; the largest |z| over the cells is what the best cell must beat (Westfall
    and Young's single-step max-T). With one cell this is the sign-flip test, of which McNemar's is
    the exact form where every document is its own group.
    """
    differences = group_sums(differences, groups).astype(np.float32)
    # The sum of squares does not change under sign flips, so z needs it only once.
    norms = np.sqrt((differences**2).sum(axis=0))
    scaled = np.divide(differences, norms, out=np.zeros_like(differences), where=norms > 0)
    observed = np.abs(scaled.sum(axis=0))
    rng = np.random.default_rng(seed)
    n_as_large = np.zeros(differences.shape[1], dtype=np.int64)
    for start in range(0, n_resamples, AT_ONCE):
        n_flips = min(AT_ONCE, n_resamples - start)
        signs = rng.integers(0, 2, size=(n_flips, len(differences)), dtype=np.int8)
        # Signs ±1 are 2·bit − 1: one product of bits, and what no flip at all would give.
        flipped = 2 * (signs.astype(np.float32) @ scaled) - scaled.sum(axis=0)
        largest = np.abs(flipped).max(axis=1)
        # A flip that gives the same counts must count as being as large, whatever float32 rounds.
        n_as_large += (largest[:, None] >= observed - 1e-4).sum(axis=0)
    return (1 + n_as_large) / (1 + n_resamples)


def random_draw_p_value(value: float, draws: ArrayLike, *, lowest: bool = False) -> float:
    """Return (1 + draws at least as good as `value`) / (1 + draws): its place among random ones."""
    draws = _finite_vector(draws)
    as_good = draws <= value + 1e-12 if lowest else draws >= value - 1e-12
    return float((1 + as_good.sum()) / (1 + len(draws)))


def is_binary(values: np.ndarray) -> bool:
    """Say whether every score is 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def are_single(groups: ArrayLike | None) -> bool:
    """Say whether every document is a group of its own."""
    return groups is None or len(np.unique(np.asarray(groups))) == len(np.asarray(groups))


def group_sums(values: ArrayLike, groups: ArrayLike | None) -> np.ndarray:
    """Sum rows `[docs, column]` by group: `[group, column]`, groups in order of first sight."""
    values = np.asarray(values, dtype=np.float64)
    if are_single(groups):
        return values
    codes = _codes(groups)
    return np.stack([np.bincount(codes, weights=column) for column in values.T], axis=1)


def _codes(groups: ArrayLike) -> np.ndarray:
    """Number the groups in order of first sight."""
    _, first, inverse = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _finite_vector(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"Expected at least one document, got an array of shape {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{(~np.isfinite(values)).sum()} of {len(values)} scores are not finite.")
    return values


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for their number by Holm's step-down rule; None stays None.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none is smaller than one
    before it, and none is above 1 (Holm 1979).
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[place] = largest
    return corrected
