"""What every method hands to the engine: a frozen edit with its grid of cells."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from sadi_bench.disk import write_atomically
from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.models.shapes import Bool, Float, Int
from sadi_bench.steering.origin import Origin


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

    `size` ranks its distance from doing nothing, which is 0: of tied cells the smaller wins.
    """

    index: int
    params: Mapping[str, float | int]
    size: int = 0


UNSTEERED = Cell(0, {})


def learnt(name: str, axes: str) -> Any:
    """Declare a dataclass field that holds a tensor, or a tuple of them, to be saved.

    `name` is its name in steering.safetensors. `axes` are its sizes' names, as in jaxtyping: equal
    names are equal sizes, `_` is any size, a number is itself, `*draw` may be absent.
    """
    return field(metadata={"name": name, "axes": axes})


def passing(**default: Any) -> Any:
    """Declare a field that lives for one batch only and is not saved."""
    return field(metadata={"saved": False}, repr=False, **default)


Kind = TypeVar("Kind", bound="Intervention")


@dataclass(frozen=True, kw_only=True)
class Intervention(ABC):
    """Edit one site's activations, differently in every cell; cell 0 leaves them alone.

    A subclass is a frozen dataclass: what it learnt are fields declared by `learnt`, its other
    fields are plain values. `overwrites`: at the steered positions every layer's site is first set
    to what the unsteered model has there, whatever this cell did below (SADI's released code).
    `origin` says which model and method it comes from; None for one made by hand.
    """

    cells: tuple[Cell, ...]
    site: Site
    reach: Reach
    overwrites: bool = False
    origin: Origin | None = passing(default=None)

    @abstractmethod
    def first_layer(self, cell: int) -> int:
        """Return the first layer that this cell edits; below it the cell is the unsteered model.

        The number of layers, or more, if it edits none.
        """

    @abstractmethod
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

    def elements(self) -> list[tuple[int, int, float]]:
        """List the ranked elements, best first: layer, index within the layer, score."""
        return []

    def only(self: Kind, cell: int) -> Kind:
        """Keep cell 0 and one other, which becomes cell 1; of cell 0 alone keep cell 0."""
        kept = () if cell == 0 else (replace(self.cells[cell], index=1),)
        return replace(self, cells=(self.cells[0], *kept))

    def cell_of(self, cell: int | str) -> int:
        """Find a cell by its number, or by the row of the report that chose it ("heldout").

        Raises:
            SettingError: there is no such cell, or nothing chose one.
        """
        chosen = self.origin.chosen if self.origin else {}
        found = chosen.get(cell) if isinstance(cell, str) else cell
        if isinstance(cell, str) and cell.isdigit():
            found = int(cell)
        if found is None:
            known = ", ".join(chosen) or "none: only a finished run has chosen"
            raise SettingError(
                f"cell={cell}: no cell was chosen under this name (known: {known}); name one by "
                f"its number, 0 to {len(self.cells) - 1}."
            )
        if not 0 <= found < len(self.cells):
            raise SettingError(
                f"cell={cell}: the grid has {len(self.cells)} cells; choose 0 (unsteered) to "
                f"{len(self.cells) - 1}."
            )
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Return what was learnt, by its name in the file."""
        from sadi_bench.steering.artefact import tensors_of

        return tensors_of(self)

    def save(self, path: str | Path) -> None:
        """Write all that rebuilds this intervention as safetensors, by rename.

        Raises:
            SettingError: it was made by hand, so that nobody knows its model.
        """
        from sadi_bench.steering.artefact import to_bytes

        write_atomically({Path(path): to_bytes(self)})

    @staticmethod
    def load(path: str | Path) -> "Intervention":
        """Read a file that `save` wrote, or the one in a run's folder; nothing in it is executed.

        Raises:
            SettingError: it is damaged, of another schema, or of a method that is not installed.
        """
        from sadi_bench.steering.artefact import read_artefact

        return read_artefact(Path(path))


class AnswerBias(Intervention):
    """Add a constant to the log-probability of every answer instead of editing activations."""

    answers: tuple[tuple[int, ...], ...]

    @property
    @abstractmethod
    def constants(self) -> Float[np.ndarray, "answer cell"]:
        """Return what each answer gets in each cell; cell 0 gets nothing."""

    def first_layer(self, cell: int) -> int:  # noqa: ARG002
        """Return a layer beyond the last: no activation is edited."""
        return sys.maxsize

    def edit(self, layer: int, values: Tensor, cells: Tensor) -> None:
        """Leave the values alone."""


class ReadsPrompts(Intervention):
    """Edit every prompt by what the unsteered model has at its own tokens.

    The engine reads a batch of prompts, then runs the intervention that is bound to them.
    """

    @abstractmethod
    def read(
        self,
        layer: int,
        values: Float[Tensor, "batch position width"],
        real: Bool[Tensor, "batch position"],
    ) -> Float[Tensor, "batch reading"]:
        """Sum up the site's values at all tokens of the prompts; what is not `real` is padding.

        Padding stands on the right. Called once a layer and batch, in any order.
        """

    @abstractmethod
    def bound(self, readings: Mapping[int, Float[Tensor, "batch copy reading"]]) -> Intervention:
        """Return the edit of these prompts; `copy` is 1 where all copies are of one prompt."""

    @abstractmethod
    def measure(
        self, readings: Mapping[int, Float[Tensor, "batch reading"]]
    ) -> dict[str, Float[Tensor, "batch cell"]]:
        """Say what the edit does to these prompts, one number a prompt and cell, by name."""


@dataclass(frozen=True, kw_only=True)
class NoIntervention(Intervention):
    """Leave the model alone: the grid is cell 0."""

    site: Site = Site.hidden
    reach: Reach = Reach.last_prompt
    cells: tuple[Cell, ...] = (UNSTEERED,)

    def first_layer(self, cell: int) -> int:  # noqa: ARG002
        """Return a layer beyond the last: nothing is edited."""
        return sys.maxsize

    def edit(self, layer: int, values: Tensor, cells: Tensor) -> None:
        """Leave the values alone."""


UNSTEERED_MODEL = NoIntervention()
