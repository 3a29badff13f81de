import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sadi_bench.results.separation import (
    answer_auc,
    biased_choices,
    fitted_constants,
    pooled_auc,
    weighted_auc,
)


def answers(seed: int, n_docs: int = 60, n_answers: int = 3, skill: float = 1.0):
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, n_answers, n_docs)
    logprobs = rng.normal(-3, 1, (n_docs, n_answers))
    logprobs[np.arange(n_docs), gold] += skill
    return np.round(logprobs, 1), gold  # rounded, so that ties occur


def by_hand(logprobs: np.ndarray, gold: np.ndarray) -> float:
    found = []
    for c in range(logprobs.shape[1]):
        rest = np.delete(logprobs, c, axis=1).mean(axis=1)
        if 0 < (gold == c).sum() < len(gold):
            found.append(roc_auc_score(gold == c, np.round(logprobs[:, c] - rest, 9)))
    return float(np.mean(found))


@pytest.mark.parametrize("n_answers", [2, 3, 5])
def test_the_auc_of_answers_is_the_mean_of_scikit_learns(n_answers):
    logprobs, gold = answers(1, n_answers=n_answers)
    assert answer_auc(logprobs, gold)[0] == pytest.approx(by_hand(logprobs, gold), abs=1e-12)


def test_ties_count_half():
    labels = np.array([True, False, True, False])
    found = weighted_auc(np.array([1.0, 1.0, 2.0, 0.0]), labels, np.ones((1, 4)))
    assert found[0] == roc_auc_score(labels, [1, 1, 2, 0]) == 0.875


@pytest.mark.parametrize("n_answers", [2, 4])
def test_no_constant_added_to_an_answer_moves_the_auc(n_answers):
    logprobs, gold = answers(2, n_answers=n_answers)
    shifted = logprobs + np.array([50.0, -3.0, 7.0, 0.5])[:n_answers]
    assert answer_auc(shifted, gold) == pytest.approx(answer_auc(logprobs, gold), abs=1e-12)
    # One curve over all answers would move, and so does accuracy.
    assert pooled_auc(shifted, gold) != pytest.approx(pooled_auc(logprobs, gold), abs=0.05)


def test_an_answer_that_is_right_nowhere_or_everywhere_does_not_count():
    logprobs, gold = answers(3, n_answers=3)
    gold[gold == 2] = 0
    assert answer_auc(logprobs, gold)[0] == pytest.approx(by_hand(logprobs, gold), abs=1e-12)
    assert np.isnan(answer_auc(logprobs, np.zeros_like(gold))[0])


def test_weights_are_repeated_documents():
    logprobs, gold = answers(4)
    weights = np.random.default_rng(0).integers(0, 4, (5, len(gold)))
    for row, found in zip(weights, answer_auc(logprobs, gold, weights.astype(float)), strict=True):
        again = np.repeat(np.arange(len(gold)), row)
        assert found == pytest.approx(answer_auc(logprobs[again], gold[again])[0])


def test_the_pooled_auc_centres_each_document_and_takes_ragged_answers():
    logprobs, gold = answers(5, n_answers=4)
    gold %= 3
    logprobs[::2, 3] = np.nan
    offsets = np.random.default_rng(1).normal(0, 100, len(gold))
    scores, labels = [], []
    for row, right in zip(logprobs, gold, strict=True):
        own = row[~np.isnan(row)]
        scores += np.round(own - own.mean(), 9).tolist()
        labels += [i == right for i in range(len(own))]
    expected = roc_auc_score(labels, scores)
    assert pooled_auc(logprobs, gold)[0] == pytest.approx(expected, abs=1e-12)
    moved = pooled_auc(logprobs + offsets[:, None], gold)[0]
    assert moved == pytest.approx(expected, abs=1e-12)


def test_two_answers_are_fitted_as_scikit_learn_fits_their_log_odds():
    logprobs, gold = answers(6, n_docs=200, n_answers=2)
    scale, constants = fitted_constants(logprobs, gold)
    odds = (logprobs[:, 1] - logprobs[:, 0])[:, None]
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds, gold)
    assert scale == pytest.approx(theirs.coef_[0, 0], rel=1e-4)
    assert constants[1] == pytest.approx(theirs.intercept_[0], abs=1e-4)
    assert constants[0] == 0
    assert list(biased_choices(logprobs, scale, constants)) == list(theirs.predict(odds))


def test_several_answers_are_fitted_as_a_general_optimiser_does():
    logprobs, gold = answers(7, n_docs=150, n_answers=4)

    def loss(parameters):
        logits = np.exp(parameters[0]) * logprobs + np.concatenate([[0.0], parameters[1:]])
        return -log_softmax(logits, axis=1)[np.arange(len(gold)), gold].mean()

    theirs = minimize(
        loss,
        np.zeros(4),
        method="Nelder-Mead",
        options={"maxiter": 20000, "maxfev": 20000, "xatol": 1e-9, "fatol": 1e-13},
    )
    scale, constants = fitted_constants(logprobs, gold)
    assert scale == pytest.approx(np.exp(theirs.x[0]), rel=1e-3)
    assert constants[1:] == pytest.approx(theirs.x[1:], abs=1e-3)


def test_scores_that_point_the_wrong_way_leave_the_most_frequent_answer():
    logprobs, gold = answers(8, n_docs=200, n_answers=2, skill=-3.0)
    gold[:20] = 1
    scale, constants = fitted_constants(logprobs, gold)
    assert scale == pytest.approx(0, abs=1e-6)  # a negative scale would turn the model around
    assert set(biased_choices(logprobs, scale, constants)) == {1}


def test_an_answer_that_is_never_right_is_never_chosen():
    logprobs, gold = answers(9, n_docs=100, n_answers=3)
    gold[gold == 2] = 1
    logprobs[:, 2] += 5
    assert 2 not in biased_choices(logprobs, *fitted_constants(logprobs, gold))


def test_answers_that_separate_perfectly_have_a_finite_fit():
    gold = np.array([0, 1] * 20)
    logprobs = np.stack([-gold * 1.0 - 9, gold * 1.0 - 10], axis=1)
    scale, constants = fitted_constants(logprobs, gold)
    assert np.isfinite([scale, *constants]).all()
    assert list(biased_choices(logprobs, scale, constants)) == list(gold)
