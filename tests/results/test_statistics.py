import numpy as np
import pytest
from scipy import stats

from sadi_bench.results.statistics import (
    bootstrap_interval,
    holm,
    max_statistic_p_values,
    mcnemar_exact,
)


def paired(gained: int, lost: int, same: int = 20) -> tuple[np.ndarray, np.ndarray]:
    before = np.array([0] * gained + [1] * lost + [1, 0] * (same // 2))
    after = np.array([1] * gained + [0] * lost + [1, 0] * (same // 2))
    return before, after


def test_mcnemar_equals_the_sum_worked_out_by_hand():
    # Of 10 discordant documents 9 are gains: 2 · (C(10,0) + C(10,1)) / 2^10 = 22 / 1024.
    assert mcnemar_exact(*paired(9, 1)) == (22 / 1024, 9, 1)
    assert mcnemar_exact(*paired(1, 9)) == (22 / 1024, 1, 9)
    # 6 of 6: 2 / 2^6.
    assert mcnemar_exact(*paired(6, 0))[0] == 2 / 64


def test_mcnemar_does_not_depend_on_documents_both_get_right_or_wrong():
    assert mcnemar_exact(*paired(9, 1, same=0)) == mcnemar_exact(*paired(9, 1, same=400))


def test_mcnemar_without_a_changed_document_is_one():
    assert mcnemar_exact(*paired(0, 0)) == (1.0, 0, 0)
    assert mcnemar_exact(*paired(5, 5))[0] == 1.0


def test_mcnemar_refuses_graded_scores_and_other_documents():
    with pytest.raises(ValueError, match="graded"):
        mcnemar_exact([0.5, 1], [1, 1])
    with pytest.raises(ValueError, match="2 documents before, 3 after"):
        mcnemar_exact([0, 1], [1, 1, 0])
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        mcnemar_exact([0, np.nan], [1, 1])


@pytest.mark.parametrize("values", [[0, 1] * 60 + [1] * 80, list(np.linspace(0, 1, 150) ** 2)])
def test_the_bootstrap_agrees_with_scipy(values):
    ours = bootstrap_interval(values, seed=1)
    theirs = stats.bootstrap(
        (np.array(values),), np.mean, n_resamples=9999, method="percentile", random_state=2
    ).confidence_interval
    # Two draws of 9,999: the ends of the interval have a standard error near 0.001.
    assert ours == pytest.approx(tuple(theirs), abs=0.006)
    assert ours[0] < np.mean(values) < ours[1]


def test_the_bootstrap_repeats_with_its_seed_and_ignores_the_order():
    values = np.random.default_rng(0).random(100)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values[::-1], seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_the_bootstrap_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(400):
        low, high = bootstrap_interval(rng.random(150) < 0.7, seed=seed, n_resamples=499)
        hits += low <= 0.7 <= high
    # Binomial(400, 0.95) has a standard deviation of 4.4; the percentile interval is a bit short.
    assert 0.91 <= hits / 400 <= 0.98


def test_equal_values_give_clopper_pearson_and_no_false_certainty():
    exact = stats.binomtest(0, 300).proportion_ci(0.95, "exact")
    assert bootstrap_interval([0] * 300) == pytest.approx((0.0, exact.high))
    assert exact.high == pytest.approx(1 - 0.025 ** (1 / 300))
    exact = stats.binomtest(300, 300).proportion_ci(0.95, "exact")
    assert bootstrap_interval([1] * 300) == pytest.approx((exact.low, 1.0))
    assert bootstrap_interval([1]) == pytest.approx((0.025, 1.0))


def test_no_difference_anywhere_gives_an_interval_around_zero():
    low, high = bootstrap_interval([0] * 300, bounds=(-1, 1))
    assert high == -low == pytest.approx(0.012221, abs=1e-6)


def test_the_bootstrap_refuses_nothing_and_nan():
    with pytest.raises(ValueError, match="at least one document"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        bootstrap_interval([1.0, np.nan])


@pytest.mark.parametrize("gained, lost", [(9, 1), (14, 6), (30, 22), (4, 4)])
def test_with_one_cell_the_max_statistic_is_mcnemars_test(gained, lost):
    before, after = paired(gained, lost)
    p_value = max_statistic_p_values((after - before)[:, None])
    assert p_value[0] == pytest.approx(mcnemar_exact(before, after)[0], abs=0.015)


def test_copies_of_a_cell_cost_nothing_and_other_cells_do():
    before, after = paired(22, 8)
    one = (after - before)[:, None]
    noise = np.random.default_rng(0).choice([-1, 0, 1], size=(len(one), 40))
    alone = max_statistic_p_values(one)[0]
    assert max_statistic_p_values(np.repeat(one, 40, axis=1))[0] == alone
    assert max_statistic_p_values(np.hstack([one, noise]))[0] > 5 * alone


def test_the_best_of_many_useless_cells_is_rarely_significant():
    naive = adjusted = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        before, after = rng.integers(0, 2, (80, 1)), rng.integers(0, 2, (80, 30))
        naive += min(mcnemar_exact(before[:, 0], cell)[0] for cell in after.T) < 0.05
        adjusted += max_statistic_p_values(after - before, seed, n_resamples=199).min() < 0.05
    assert naive > 20
    assert adjusted <= 12


def test_cells_that_change_nothing_are_not_significant():
    assert list(max_statistic_p_values(np.zeros((10, 3)), n_resamples=99)) == [1.0, 1.0, 1.0]


def test_cells_that_shake_everything_do_not_hide_one_that_helps_quietly():
    quiet = np.array([1] * 10 + [0] * 390)
    noisy = np.random.default_rng(0).choice([-1, 1], size=(400, 5))
    assert max_statistic_p_values(np.column_stack([quiet, noisy]))[0] < 0.05


def test_holms_correction_equals_the_textbooks_example():
    # Four tests: 0.005 · 4, 0.01 · 3, 0.03 · 2, and 0.04 · 1, which may not be below 0.06.
    corrected = holm([0.01, 0.04, None, 0.03, 0.005])
    assert corrected == [pytest.approx(0.03), pytest.approx(0.06), None, pytest.approx(0.06), 0.02]


def test_holms_p_is_never_above_one_nor_below_the_raw_one():
    raw = [0.9, 0.4, 0.6, 0.001]
    corrected = holm(raw)
    assert corrected == [1.0, 1.0, 1.0, 0.004]
    assert all(p >= q for p, q in zip(corrected, raw, strict=True))
    assert holm([0.04]) == [0.04] and holm([]) == []
