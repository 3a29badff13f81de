"""What is asked behind one prompt, and what every cell says to it; constants an answer included."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix

import numpy as np

from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.logits import following_tokens
from sadi_bench.models.shapes import Bool, Float, Int
from sadi_bench.steering.intervention import AnswerBias, Intervention

NO_TOKEN = -1
"""Stands for the prediction of a cell whose numbers are not finite."""

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class ChoiceRequest:
    """Hold one prompt and its answers, as tokens."""

    prompt: Tokens
    answers: tuple[Tokens, ...]


@dataclass(frozen=True)
class ChoiceScores:
    """Hold the scores of one request.

    logprobs: float32, summed over the answer's tokens, natural logarithm.
    predicted: for every answer, the arg-max of the whole vocabulary at each position that predicts
    one of its tokens, given the answer's own tokens before it.
    measured: what the intervention did to this prompt, one number a cell, by name.
    A cell whose activations overflowed has logprob -inf, predicted -1 and finite False.
    """

    answers: tuple[Tokens, ...]
    logprobs: Float[np.ndarray, "choice cell"]
    predicted: tuple[Int[np.ndarray, "_step cell"], ...]
    finite: Bool[np.ndarray, " cell"]
    measured: Mapping[str, Float[np.ndarray, " cell"]] = field(default_factory=dict)

    @property
    def greedy(self) -> Bool[np.ndarray, "choice cell"]:
        """Say where every token of an answer is the arg-max of the whole vocabulary."""
        pairs = zip(self.answers, self.predicted, strict=True)
        return np.stack([(answer == found.T).all(axis=1) for answer, found in pairs])


@dataclass(frozen=True)
class NodeScores:
    """Hold a batch's `TokenScores` in all cells, in NumPy."""

    logprobs: Float[np.ndarray, "row cell successor"]
    best: Int[np.ndarray, "row cell"]
    outside: Int[np.ndarray, "row cell"]
    outside_logprobs: Float[np.ndarray, "row cell"]


def answer_constants(
    lm: LanguageModel, intervention: Intervention, answers: Sequence[Tokens]
) -> Float[np.ndarray, "choice cell"] | None:
    """Find the constants that an intervention adds to some answers; None where it adds none.

    Raises:
        SettingError: it adds constants, and has none for one of these.
    """
    if not isinstance(intervention, AnswerBias):
        return None
    known = dict(zip(intervention.answers, intervention.constants, strict=True))
    for answer in answers:
        if answer not in known:
            raise SettingError(
                f"method=calibrate: no constant was learnt for the answer "
                f"{lm.tokenizer.decode(answer)!r}, which no pair has; choose more task.n_pairs, or "
                "a task whose choices are always the same."
            )
    return np.stack([known[answer] for answer in answers])


def scores_of(
    answers: tuple[Tokens, ...],
    steps: Sequence[Sequence[tuple[int, int]]],
    found: NodeScores,
    constants: Float[np.ndarray, "choice cell"] | None = None,
    measured: Mapping[str, Float[np.ndarray, " cell"]] | None = None,
) -> ChoiceScores:
    """Put the scores of one prompt's answers together.

    `steps` are the (row, successor) pairs of every answer's tokens. An answer's log-probability
    gets its whole constant. In the vocabulary the constant stands at the first position where the
    answers differ. Answers that share the token there ("very positive", "very negative") share the
    largest of their constants, and each gets the rest where it leaves the others: along every
    answer the constants add up to its own. (Only an answer that another one continues never leaves
    it, and has the other's share.) Predicted is then the best of all tokens.
    """
    sums = np.stack([sum(found.logprobs[row, :, slot] for row, slot in answer) for answer in steps])
    finite = np.isfinite(sums).all(axis=0)
    if constants is None:
        best = [found.best[[row for row, _ in answer]] for answer in steps]
    else:
        sums = sums + constants
        best = _calibrated(answers, steps, found, constants)
    return ChoiceScores(
        answers,
        np.where(finite, sums, -np.inf),
        tuple(np.where(finite, tokens, NO_TOKEN).astype(np.int32) for tokens in best),
        finite,
        measured or {},
    )


def _calibrated(
    answers: Sequence[Tokens],
    steps: Sequence[Sequence[tuple[int, int]]],
    found: NodeScores,
    constants: Float[np.ndarray, "choice cell"],
) -> list[Int[np.ndarray, "_step cell"]]:
    """Predict with constants: the best of a node's successors and of all tokens outside them."""
    following, given = following_tokens(answers), _beginnings(answers, constants)
    best = []
    for answer, pairs in zip(answers, steps, strict=True):
        best.append([])
        for depth, (row, _) in enumerate(pairs):
            said = answer[:depth]
            tokens = following[said]
            added = np.stack([given[(*said, token)] - given[said] for token in tokens])
            values = np.vstack(
                [found.logprobs[row, :, : len(tokens)].T + added, found.outside_logprobs[row]]
            )
            ids = np.vstack([np.tile(tokens, (added.shape[1], 1)).T, found.outside[row]])
            tied = np.where(values == values.max(axis=0), ids, np.iinfo(ids.dtype).max)
            # Logarithms may round two logits to one: where nothing is added nothing may move.
            best[-1].append(np.where(added.any(axis=0), tied.min(axis=0), found.best[row]))
    return [np.stack(tokens) for tokens in best]


def _beginnings(
    answers: Sequence[Tokens], constants: Float[np.ndarray, "choice cell"]
) -> dict[Tokens, Float[np.ndarray, " cell"]]:
    """Say what every beginning of an answer has been given, its last token included."""
    given: dict[Tokens, np.ndarray] = {}
    for answer, constant in zip(answers, constants, strict=True):
        for depth in range(1, len(answer) + 1):
            known = given.get(answer[:depth], constant)
            given[answer[:depth]] = np.maximum(known, constant)
    common = commonprefix(list(answers)) if len(set(answers)) > 1 else ()
    nothing = np.zeros_like(constants[0])
    return given | {common[:depth]: nothing for depth in range(len(common) + 1)}
