"""Calibration: one constant a choice, no steering; what any steering of choices must beat.

log p'(choice) = log p(choice) + scale · b(choice). `contextual` (arXiv 2102.09690): b is minus the
log of what the model gives the choice where the document's content is left out. `prior`: b is such
that, averaged over the identify split, the choices get the share that is right there.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.special import log_softmax, logsumexp
from torch import Tensor

from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.layout import layout_of
from sadi_bench.models.logits import successors_of, token_scores
from sadi_bench.models.packing import run_branches, run_prefix
from sadi_bench.models.shapes import Float
from sadi_bench.steering.activations import EncodedContrast, passes, without_overflow
from sadi_bench.steering.cells import cells_of, distance_of
from sadi_bench.steering.intervention import AnswerBias, Cell, Reach, learnt
from sadi_bench.steering.method import Method
from sadi_bench.steering.method_settings import numbers

MOST_ANSWERS = 26
"""Answers that the choices of all documents may be; a letter each, at most."""
STEPS, TOLERANCE = 1000, 1e-9


@dataclass(frozen=True, kw_only=True)
class ChoiceBias(AnswerBias):
    """Add `scale` times a constant an answer; activations are left alone."""

    answers: tuple[tuple[int, ...], ...]
    bias: Float[Tensor, " answer"] = learnt("bias", "answer")
    site: Site = Site.hidden
    reach: Reach = Reach.last_prompt

    @property
    def constants(self) -> Float[np.ndarray, "answer cell"]:
        """Scale the bias for every cell; cell 0 gets none."""
        scales = [cell.params.get("scale", 0.0) for cell in self.cells]
        return np.outer(self.bias.numpy(), scales).astype(np.float32)


def answer_logprobs(
    lm: LanguageModel, pairs: Sequence[EncodedContrast], answers: Sequence[tuple[int, ...]]
) -> Float[np.ndarray, "prompt answer"]:
    """Score all answers behind every different prompt of the pairs, in the unsteered model.

    Raises:
        SettingError: a log-probability is not finite.
    """
    prompts = list({pair.prompt: pair for pair in pairs}.values())
    longest = max(map(len, answers))
    for pair in prompts:
        lm.check_length(len(pair.prompt) + longest)

    reader = partial(_read_answers, answers=tuple(answers))
    numbers, found = zip(*passes(lm, prompts, reader), strict=True)
    logprobs = torch.cat([each["logprobs"] for each in found])
    return without_overflow(lm, logprobs[torch.tensor(sum(numbers, [])).argsort()]).numpy()


def _read_answers(
    lm: LanguageModel, pairs: list[EncodedContrast], answers: Sequence[tuple[int, ...]]
) -> dict[str, Float[Tensor, "prompt answer"]]:
    asked, branches = [pair.prompt for pair in pairs], [answers] * len(pairs)
    layout = layout_of(asked, branches, packed=lm.packs)
    successors = successors_of(layout, branches)
    hidden = run_branches(lm, run_prefix(lm, asked), layout, 1)
    logprobs = token_scores(lm, hidden, successors).logprobs[:, 0].cpu().double()
    sums = [
        [sum(logprobs[row, slot] for row, slot in answer) for answer in steps]
        for steps in successors.steps
    ]
    return {"logprobs": torch.tensor(sums, dtype=torch.float64)}


def contextual_bias(
    logprobs: Float[np.ndarray, "prompt answer"],
) -> Float[np.ndarray, " answer"]:
    """Return -log of the mean share of each answer (arXiv 2102.09690, W = diag(p)^-1)."""
    shares = log_softmax(logprobs, axis=1)
    return np.log(len(shares)) - logsumexp(shares, axis=0)


def prior_bias(
    logprobs: Float[np.ndarray, "prompt answer"], shares: Float[np.ndarray, " answer"]
) -> Float[np.ndarray, " answer"]:
    """Return the bias under which the answers' mean shares are `shares`; its mean is 0."""
    bias = np.zeros(logprobs.shape[1])
    for _ in range(STEPS):
        now = logsumexp(log_softmax(logprobs + bias, axis=1), axis=0) - np.log(len(logprobs))
        step = np.log(shares) - now
        bias += step - step.mean()
        if np.ptp(step) < TOLERANCE:
            break
    return bias


@dataclass(frozen=True)
class Calibrate(Method):
    """Hold the settings: which constant, how much of it."""

    bias: str = "contextual"
    scale: float | Sequence[float] = 1.0
    content_free: Sequence[str] = ("N/A", "[MASK]", "")

    intervention = ChoiceBias
    CHOICES = {"bias": ("contextual", "prior")}

    def check(self) -> None:
        """Refuse what the choices do not know of."""
        if self.bias == "contextual" and not self.content_free:
            raise SettingError(
                "method.content_free=[]: method.bias=contextual asks the model about texts without "
                "content; list at least one, such as N/A."
            )
        self.grid()

    def blank_texts(self) -> Sequence[str]:
        """Return what stands for a document without content; `prior` reads the documents."""
        return self.content_free if self.bias == "contextual" else ()

    def grid(self) -> tuple[Cell, ...]:
        """Lay out cell 0 and the scales."""
        return cells_of(
            lambda point: distance_of(point["scale"]), scale=numbers("scale", self.scale)
        )

    def fit(self, lm: LanguageModel, pairs: Sequence[EncodedContrast]) -> ChoiceBias:
        """Turn what the unsteered model says behind the pairs' prompts into constants."""
        answers = sorted({answer for pair in pairs for answer in (pair.positive, pair.negative)})
        if len(answers) > MOST_ANSWERS:
            raise SettingError(
                f"method=calibrate: the pairs have {len(answers)} different answers, and at most "
                f"{MOST_ANSWERS} get a constant each; choose a task whose choices are the same in "
                "every document."
            )
        if () in answers:
            raise SettingError(
                "method=calibrate: a side of the pairs is blank, and no constant can be added to "
                "it; choose a multiple-choice task, or another method."
            )
        logprobs = answer_logprobs(lm, pairs, answers)
        if self.bias == "contextual":
            bias = contextual_bias(logprobs)
        else:
            right = Counter(pair.positive for pair in pairs)
            counts = np.array([right[answer] + 1.0 for answer in answers])  # none is ruled out
            bias = prior_bias(logprobs, counts / counts.sum())
        return ChoiceBias(answers=tuple(answers), bias=torch.from_numpy(bias), cells=self.grid())


METHOD = Calibrate
