"""What a constant cannot change, and what a constant alone can do.

`auc` asks how well log-probabilities separate right from wrong whatever constant is added to an
answer. `acc_biased` is the accuracy after the best constants. docs/numbers.md defines both.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

LARGEST_SCALE, LARGEST_CONSTANT = 1e3, 50.0
"""Bounds of the fit, in units of the log-probabilities' spread: an answer may never be right."""


def answer_auc(
    logprobs: np.ndarray, gold: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return the AUC of one answer against the rest, averaged over answers: `[resample]`.

    `logprobs` [docs answer], `gold` [docs] the right answer's number, `weights` [resample docs] how
    often each document counts (None: once each). For answer c the score is its log-probability less
    the mean of the others', the label is gold = c; ties count half. Answers that are right nowhere,
    or everywhere, have no AUC and do not count; NaN where none has one.
    """
    weights = np.ones((1, len(gold))) if weights is None else weights
    n_answers = logprobs.shape[1]
    others = (logprobs.sum(axis=1, keepdims=True) - logprobs) / (n_answers - 1)
    curves = [
        weighted_auc(logprobs[:, c] - others[:, c], gold == c, weights) for c in range(n_answers)
    ]
    return _mean_of_known(np.stack(curves))


def pooled_auc(
    logprobs: np.ndarray, gold: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return the AUC of all answers in one curve, each centred per document: `[resample]`.

    For documents whose answers differ. `logprobs` [docs answer] is NaN where a document has fewer
    answers than another.
    """
    weights = np.ones((1, len(gold))) if weights is None else weights
    centred = logprobs - np.nanmean(logprobs, axis=1, keepdims=True)
    right = np.arange(logprobs.shape[1]) == gold[:, None]
    docs, _ = known = np.nonzero(~np.isnan(logprobs))
    return weighted_auc(centred[known], right[known], weights[:, docs])


def weighted_auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve, ties counted half, for each row of weights.

    `scores` and `labels` are [item], `weights` [resample item]. NaN where a class has no weight.
    """
    # Differences of equal log-probabilities are equal only up to rounding; float32 gave them
    # about 1e-6 of precision, so that this joins nothing but ties.
    scores = np.round(scores, 9)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)
    weights, labels = weights[:, order], labels[order]
    right = np.add.reduceat(weights * labels, starts, axis=1)
    wrong = np.add.reduceat(weights * ~labels, starts, axis=1)
    below = np.cumsum(wrong, axis=1) - wrong
    ranked = (right * (below + wrong / 2)).sum(axis=1)
    pairs = right.sum(axis=1) * wrong.sum(axis=1)
    return np.divide(ranked, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def fitted_constants(logprobs: np.ndarray, gold: np.ndarray) -> tuple[float, np.ndarray]:
    """Fit softmax(t · logprob + constants) to the right answers by maximum likelihood.

    `logprobs` [docs answer], `gold` [docs]. Returns t ≥ 0, common to all answers, and the constants
    [answer], the first 0. The problem is convex.
    """
    centred = logprobs - logprobs.mean(axis=1, keepdims=True)
    spread = float(centred.std()) or 1.0
    centred, rows = centred / spread, np.arange(len(gold))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits = parameters[0] * centred + np.concatenate([[0.0], parameters[1:]])
        logs = logits - logsumexp(logits, axis=1, keepdims=True)
        error = np.exp(logs)
        error[rows, gold] -= 1
        slopes = np.concatenate([[(error * centred).sum()], error[:, 1:].sum(axis=0)])
        return -logs[rows, gold].mean(), slopes / len(gold)

    n_answers = logprobs.shape[1]
    limits = [(0.0, LARGEST_SCALE)] + [(-LARGEST_CONSTANT, LARGEST_CONSTANT)] * (n_answers - 1)
    start = np.concatenate([[1.0], np.zeros(n_answers - 1)])
    options = {"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(loss, start, jac=True, bounds=limits, method="L-BFGS-B", options=options).x
    return found[0] / spread, np.concatenate([[0.0], found[1:]])


def biased_choices(logprobs: np.ndarray, scale: float, constants: np.ndarray) -> np.ndarray:
    """Return each document's likeliest answer after the constants, `[docs]`; ties to the first.

    The choice is that of logprob + constants / scale; a scale of 0 leaves the constants alone.
    """
    return np.argmax(scale * logprobs + constants, axis=1)


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Average over the first axis, NaN left out; NaN where all are."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0)
    counts = known.sum(axis=0)
    return np.divide(total, counts, out=np.full(len(total), np.nan), where=counts > 0)
