"""Intervals and tests for scores measured on the same documents."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

LEVEL = 0.95
N_RESAMPLES = 9999
# Sign flips are drawn this many at a time, so that MMLU's 12,178 documents need 25 MB and not 1 GB.
FLIPS_AT_ONCE = 500


def bootstrap_interval(
    values: ArrayLike,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """Return the percentile bootstrap 95 % interval of the mean of `values`, `[docs]`.

    A score has few distinct values, so how often each is drawn follows a multinomial: the same
    distribution as drawing documents one by one, at a fraction of the cost.

    Where all values are equal every resample is equal too, and the bootstrap would claim certainty.
    Then the interval is Clopper-Pearson's: at most `1 - 0.025 ** (1 / docs)` of the population may
    differ, and may lie as far away as `bounds`, the smallest and largest value possible.
    """
    values = _finite_vector(values)
    support, counts = np.unique(values, return_counts=True)
    if len(support) == 1:
        unseen = 1 - ((1 - LEVEL) / 2) ** (1 / len(values))
        low, high = (support[0] + unseen * (bound - support[0]) for bound in bounds)
        return float(low), float(high)
    draws = np.random.default_rng(seed).multinomial(
        len(values), counts / len(values), size=n_resamples
    )
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(draws @ support / len(values), tails)
    return float(low), float(high)


def mcnemar_exact(before: ArrayLike, after: ArrayLike) -> tuple[float, int, int]:
    """Return the two-sided exact McNemar p-value, how many documents were gained, how many lost.

    `before` and `after` are 0/1 for the same documents in the same order. Gained and lost are the
    discordant counts b and c of the textbooks; without any the p-value is 1.
    """
    before, after = _finite_vector(before), _finite_vector(after)
    if before.shape != after.shape:
        raise ValueError(f"{len(before)} documents before, {len(after)} after: not the same ones.")
    if not (np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all()):
        raise ValueError("McNemar's test takes right (1) or wrong (0), not graded scores.")
    gained, lost = int((after > before).sum()), int((after < before).sum())
    if gained + lost == 0:
        return 1.0, 0, 0
    return float(binomtest(gained, gained + lost).pvalue), gained, lost


def max_statistic_p_values(
    differences: ArrayLike, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> np.ndarray:
    """Return each cell's two-sided p-value corrected for having looked at all cells, `[cell]`.

    `differences` is steered minus unsteered, `[docs, cell]`. Under "no cell does anything" a
    document's whole row of differences may as well have the other sign. One sign per document keeps
    the cells' correlation; the largest |z| over the cells is what the best cell must beat
    (Westfall and Young's single-step max-T). With one cell this is the sign-flip test, of which
    McNemar's is the exact form.
    """
    differences = np.asarray(differences, dtype=np.float32)
    # The sum of squares does not change under sign flips, so z needs it only once.
    norms = np.sqrt((differences**2).sum(axis=0))
    scaled = np.divide(differences, norms, out=np.zeros_like(differences), where=norms > 0)
    observed = np.abs(scaled.sum(axis=0))
    rng = np.random.default_rng(seed)
    n_as_large = np.zeros(differences.shape[1], dtype=np.int64)
    for start in range(0, n_resamples, FLIPS_AT_ONCE):
        n_flips = min(FLIPS_AT_ONCE, n_resamples - start)
        signs = rng.integers(0, 2, size=(n_flips, len(differences)), dtype=np.int8)
        # Signs ±1 are 2·bit − 1: one product of bits, and what no flip at all would give.
        flipped = 2 * (signs.astype(np.float32) @ scaled) - scaled.sum(axis=0)
        largest = np.abs(flipped).max(axis=1)
        # A flip that gives the same counts must count as being as large, whatever float32 rounds.
        n_as_large += (largest[:, None] >= observed - 1e-4).sum(axis=0)
    return (1 + n_as_large) / (1 + n_resamples)


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
