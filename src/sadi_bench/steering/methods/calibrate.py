"""Calibration: one constant a choice, no steering; what any steering of choices must beat.

log p'(choice) = log p(choice) + scale · b(choice). `contextual` (arXiv 2102.09690): b is minus the
log of what the model gives the choice where the document's content is left out. `prior`: b is such
that, averaged over the identify split, the choices get the share that is right there.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.special import log_softmax, logsumexp
from torch import Tensor

from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.shapes import Float
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.grid import cells_of, check_choices, numbers
from sadi_bench.steering.intervention import Cell, Reach

MOST_ANSWERS = 26
"""Answers that the choices of all documents may be; a letter each, at most."""
STEPS, TOLERANCE = 1000, 1e-9


@dataclass(frozen=True)
class ChoiceBias:
    """Add `scale` times a constant an answer; activations are left alone.

    `shares` are those that the answers shall get; None divides by what content-free prompts say.
    """

    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    cells: tuple[Cell, ...]
    shares: Float[np.ndarray, " answer"] | None
    site: Site = Site.hidden
    reach: Reach = Reach.last_prompt
    overwrites: bool = False
    _learnt: dict[str, Tensor] = field(init=False, default_factory=dict)

    def first_layer(self, cell: int) -> int:  # noqa: ARG002
        """Return a layer beyond the last: no activation is edited."""
        return sys.maxsize

    def edit(self, layer: int, values: Tensor, cells: Tensor) -> None:
        """Leave the values alone."""

    def biases(
        self, logprobs: Float[np.ndarray, "prompt answer"]
    ) -> Float[np.ndarray, "answer cell"]:
        """Learn the constants, and scale them for every cell; cell 0 gets none."""
        logprobs = logprobs.astype(float)
        bias = (
            contextual_bias(logprobs) if self.shares is None else prior_bias(logprobs, self.shares)
        )
        self._learnt["bias"] = torch.from_numpy(bias)
        scales = [cell.params.get("scale", 0.0) for cell in self.cells]
        return np.outer(bias, scales)

    def tensors(self) -> dict[str, Tensor]:
        """Return the bias [answer], once something was scored."""
        return dict(self._learnt)

    def elements(self) -> list[tuple[int, int, float]]:
        """Return none: nothing is ranked."""
        return []


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
class Calibrate:
    """Hold the settings: which constant, how much of it."""

    bias: str = "contextual"
    scale: float | Sequence[float] = 1.0
    content_free: Sequence[str] = ("N/A", "[MASK]", "")

    CHOICES = {"bias": ("contextual", "prior")}

    def __post_init__(self) -> None:
        check_choices(self, self.CHOICES)
        if self.bias == "contextual" and not self.content_free:
            raise SettingError(
                "method.content_free=[]: method.bias=contextual asks the model about texts without "
                "content; list at least one, such as N/A."
            )
        if self.bias == "prior":
            object.__setattr__(self, "content_free", ())
        self.grid()

    def departures(self) -> list[str]:
        """List nothing: both constants are as published."""
        return []

    def grid(self) -> tuple[Cell, ...]:
        """Lay out cell 0 and the scales."""
        return cells_of(scale=numbers("scale", self.scale))

    def fit(self, lm: LanguageModel, pairs: Sequence[EncodedContrast]) -> ChoiceBias:  # noqa: ARG002
        """Take prompts and answers from the pairs; the model is asked when scoring begins."""
        answers = sorted({answer for pair in pairs for answer in (pair.positive, pair.negative)})
        if len(answers) > MOST_ANSWERS:
            raise SettingError(
                f"method=calibrate: the pairs have {len(answers)} different answers, and at most "
                f"{MOST_ANSWERS} get a constant each; choose a task whose choices are the same in "
                "every document."
            )
        shares = None
        if self.bias == "prior":
            right = Counter(pair.positive for pair in pairs)
            counts = np.array([right[answer] + 1.0 for answer in answers])  # none is ruled out
            shares = counts / counts.sum()
        return ChoiceBias(
            prompts=tuple(dict.fromkeys(pair.prompt for pair in pairs)),
            answers=tuple(answers),
            cells=self.grid(),
            shares=shares,
        )


METHOD = Calibrate
