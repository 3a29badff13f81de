"""Documents that share a premise are not independent: intervals and tests heed it."""

import numpy as np
import pytest
from scipy import stats

from sadi_bench.results.statistics import (
    bootstrap_interval,
    max_statistic_p_values,
    mean_interval,
    random_draw_p_value,
    resampled_weights,
)


def correlated(seed: int, n_groups: int = 100, size: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Triples that are mostly right or wrong together; the mean is 0.5."""
    rng = np.random.default_rng(seed)
    rates = rng.choice([0.1, 0.9], n_groups)
    groups = np.repeat(np.arange(n_groups), size)
    return (rng.random(len(groups)) < rates[groups]).astype(float), groups


def test_groups_of_one_change_nothing():
    values = np.random.default_rng(0).random(80)
    names = np.array([f"#{i}" for i in range(80)])
    assert bootstrap_interval(values, groups=names) == bootstrap_interval(values)
    differences = np.random.default_rng(1).choice([-1, 0, 1], (80, 5))
    alone = max_statistic_p_values(differences)
    assert list(max_statistic_p_values(differences, groups=names)) == list(alone)


def test_the_grouped_interval_covers_the_truth_and_the_plain_one_does_not():
    grouped = plain = 0
    for seed in range(300):
        values, groups = correlated(seed)
        low, high = bootstrap_interval(values, seed, 499, groups=groups)
        grouped += low <= 0.5 <= high
        low, high = bootstrap_interval(values, seed, 499)
        plain += low <= 0.5 <= high
    # Binomial(300, 0.95) has a standard deviation of 3.8.
    assert 0.92 <= grouped / 300 <= 0.98
    assert plain / 300 < 0.88


def test_the_grouped_test_keeps_its_level_and_the_plain_one_does_not():
    grouped = plain = 0
    for seed in range(200):
        before, groups = correlated(seed)
        after, _ = correlated(seed + 10_000)
        difference = (after - before)[:, None]
        grouped += max_statistic_p_values(difference, seed, 399, groups=groups)[0] < 0.05
        plain += max_statistic_p_values(difference, seed, 399)[0] < 0.05
    assert grouped / 200 < 0.09
    assert plain / 200 > 0.12


def test_the_grouped_interval_is_that_of_drawing_groups_one_by_one():
    values, groups = correlated(3, n_groups=30)
    values[-2:], groups[-2:] = 1.0, 7  # one group larger, one smaller
    rng, means = np.random.default_rng(5), []
    for _ in range(4000):
        drawn = rng.integers(0, 30, 30)
        means.append(np.concatenate([values[groups == g] for g in drawn]).mean())
    expected = np.quantile(means, [0.025, 0.975])
    assert bootstrap_interval(values, groups=groups) == pytest.approx(tuple(expected), abs=0.02)


def test_plain_scores_of_0_and_1_get_wilsons_interval():
    values = np.array([1] * 30 + [0] * 70)
    theirs = stats.binomtest(30, 100).proportion_ci(0.95, "wilson")
    assert mean_interval(values) == pytest.approx((theirs.low, theirs.high))
    assert mean_interval(values * 0.5) == bootstrap_interval(values * 0.5)
    groups = np.arange(100) // 2
    assert mean_interval(values, groups) == bootstrap_interval(values, groups=groups)


def test_equal_values_are_as_uncertain_as_their_groups_are_few():
    low, _ = bootstrap_interval([1.0] * 30, groups=np.arange(30) // 3)
    assert low == pytest.approx(0.025 ** (1 / 10))


def test_resampled_weights_draw_whole_groups_as_many_as_there_are():
    groups = np.array(["b", "a", "b", "c", "c", "c"])
    weights = np.concatenate(list(resampled_weights(6, groups, seed=0, n_resamples=1100)))
    assert weights.shape == (1100, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(6), abs=0.1)


def test_a_value_takes_its_place_among_random_draws():
    draws = [0.5, 0.6, 0.6, 0.7]
    assert random_draw_p_value(0.6, draws) == (1 + 3) / 5
    assert random_draw_p_value(0.8, draws) == 1 / 5
    assert random_draw_p_value(0.6, draws, lowest=True) == (1 + 3) / 5
    assert random_draw_p_value(0.4, draws, lowest=True) == 1 / 5
