"""What every method hands to the engine: a frozen edit with its grid of cells."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from sadi_bench.models.families import Site
from sadi_bench.models.shapes import Bool, Float, Int


class Reach(str, Enum):
    """Name the positions that are edited.

    last_prompt: the prompt's last token, once. from_last_prompt: that token and all later ones.
    all_tokens: every token of the prompt, and all later ones.
    """

    last_prompt = "last_prompt"
    from_last_prompt = "from_last_prompt"
    all_tokens = "all_tokens"


@dataclass(frozen=True)
class Cell:
    """Name one point of a method's grid; cell 0 is always the unsteered model.

    `size` ranks the grid's cells by their distance from doing nothing, which is 0.
    """

    index: int
    params: Mapping[str, float | int]
    size: int = 0


UNSTEERED = Cell(0, {})


@runtime_checkable
class Intervention(Protocol):
    """Edit one site's activations, differently in every cell; cell 0 must leave them alone.

    `overwrites`: at the steered positions every layer's site is first set to what the unsteered
    model has there, whatever this cell did below (the released code of SADI).
    """

    site: Site
    reach: Reach
    cells: tuple[Cell, ...]
    overwrites: bool

    def first_layer(self, cell: int) -> int:
        """Return the first layer that this cell edits; below it the cell is the unsteered model.

        The number of layers, if it edits none.
        """

    def edit(
        self,
        layer: int,
        values: Float[Tensor, "batch copy node width"],
        cells: Int[Tensor, " cell"],
    ) -> Float[Tensor, "batch cell node width"] | None:
        """Return new values at the steered positions, or None to leave them all.

        `cells` are indices into `self.cells`, on the CPU. `values` has one copy a cell, or, where
        the intervention overwrites, a single one for all: the unsteered model's.
        """

    def tensors(self) -> dict[str, Tensor]:
        """Return what was learnt, by name, to be stored."""

    def elements(self) -> list[tuple[int, int, float]]:
        """List the ranked elements, best first: layer, index within the layer, score."""


@runtime_checkable
class AnswerBias(Intervention, Protocol):
    """Add a constant to the log-probability of every answer instead of editing activations.

    `prompts` and `answers` are what the unsteered model is asked before anything is scored.
    """

    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]

    def biases(
        self, logprobs: Float[np.ndarray, "prompt answer"]
    ) -> Float[np.ndarray, "answer cell"]:
        """Learn the constants from the log-probabilities of all answers behind all prompts."""


@runtime_checkable
class ReadsPrompts(Intervention, Protocol):
    """Edit every prompt by what the unsteered model has at its own tokens.

    The engine reads a batch of prompts, then runs the intervention that is bound to them.
    """

    def read(
        self,
        layer: int,
        values: Float[Tensor, "batch position width"],
        real: Bool[Tensor, "batch position"],
    ) -> Float[Tensor, "batch reading"]:
        """Sum up the site's values at all tokens of the prompts; what is not `real` is padding.

        Called once a layer and batch, in any order.
        """

    def bound(self, readings: Mapping[int, Float[Tensor, "batch copy reading"]]) -> Intervention:
        """Return the edit of these prompts; `copy` is 1 where all copies are of one prompt."""


@runtime_checkable
class Measured(Protocol):
    """Tell what a method did to the model, for tables: one number a cell, by name.

    Averaged over the prompts that were scored; empty before any was.
    """

    @property
    def measured(self) -> Mapping[str, list[float]]:
        """Return the measurements of all cells, cell 0 included."""


@dataclass(frozen=True)
class NoIntervention:
    """Leave the model alone: the grid is cell 0."""

    site: Site = Site.hidden
    reach: Reach = Reach.last_prompt
    cells: tuple[Cell, ...] = (UNSTEERED,)
    overwrites: bool = False

    def first_layer(self, cell: int) -> int:  # noqa: ARG002
        """Return a layer beyond the last: nothing is edited."""
        return sys.maxsize

    def edit(self, layer: int, values: Tensor, cells: Tensor) -> None:
        """Leave the values alone."""

    def tensors(self) -> dict[str, Tensor]:
        """Return nothing: nothing was learnt."""
        return {}

    def elements(self) -> list[tuple[int, int, float]]:
        """Return none: nothing was ranked."""
        return []


UNSTEERED_MODEL = NoIntervention()
