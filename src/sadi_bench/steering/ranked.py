"""Interventions that rank elements once and edit, in every cell, the highest of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from sadi_bench.models.shapes import Bool, Int
from sadi_bench.steering.intervention import Cell, Intervention, learnt


@dataclass(frozen=True)
class Masks:
    """Hold every cell's identification mask: of its draw, the elements of rank below its K."""

    ranks: Int[Tensor, "draw layer element"]
    draw: Int[Tensor, " cell"]  # counted from 0
    top_k: Int[Tensor, " cell"]  # 0 masks none

    @cached_property
    def masked(self) -> Bool[Tensor, "cell layer"]:
        """Say which cells mask anything in which layer."""
        return self.ranks.amin(dim=2)[self.draw] < self.top_k[:, None]

    @cached_property
    def _first(self) -> list[int]:
        layers = self.masked.shape[1]
        return self.masked.int().argmax(dim=1).where(self.masked.any(dim=1), layers).tolist()

    @cached_property
    def _placed(self) -> dict[torch.device, tuple[Tensor, ...]]:
        return {}

    def first_layer(self, cell: int) -> int:
        """Return the first layer with a masked element, or the number of layers."""
        return self._first[cell]

    def at(
        self, layer: int, cells: Int[Tensor, " cell"], device: torch.device
    ) -> Bool[Tensor, "cell element"] | None:
        """Return one layer's masks on a device that is not waited for; None if all are empty."""
        if not self.masked[cells, layer].any():
            return None
        if device not in self._placed:
            self._placed[device] = tuple(t.to(device) for t in (self.ranks, self.draw, self.top_k))
        ranks, draw, top_k = self._placed[device]
        cells = cells.to(device, non_blocking=True)
        return ranks[draw[cells], layer] < top_k[cells, None]


def graded_masks(
    ranks: Int[Tensor, "*draw layer element"],
    cells: Sequence[Cell],
    strength: str,
    identity: float = 0.0,
) -> tuple[Masks, Tensor]:
    """Return the cells' masks and, in each cell, its change from what leaves values alone.

    A cell's change is its parameter `strength` less `identity`; none is masked where it is 0.
    Cells without `draw` take the first.
    """
    changes = torch.tensor([cell.params.get(strength, identity) - identity for cell in cells])
    top_k = torch.tensor([cell.params.get("top_k", 0) for cell in cells])
    draw = torch.tensor([cell.params.get("draw", 1) - 1 for cell in cells])
    every_draw = ranks.reshape(-1, *ranks.shape[-2:])
    return Masks(every_draw, draw, top_k * (changes != 0)), changes


@dataclass(frozen=True, kw_only=True)
class RankedIntervention(Intervention):
    """Edit the elements of rank below a cell's K, more or less by the cell's own change.

    `CHANGE` is the parameter that says how much, `IDENTITY` its value that changes nothing.
    """

    ranks: Int[Tensor, "*draw layer element"] = learnt("element_ranks", "*draw layer element")

    CHANGE: ClassVar[str] = "strength"
    IDENTITY: ClassVar[float] = 0.0

    @cached_property
    def _graded(self) -> tuple[Masks, Tensor]:
        return graded_masks(self.ranks, self.cells, self.CHANGE, self.IDENTITY)

    @property
    def masks(self) -> Masks:
        """The elements that each cell edits."""
        return self._graded[0]

    @property
    def changes(self) -> Tensor:
        """How much each cell changes, float [cell]; 0 leaves values alone."""
        return self._graded[1]

    def first_layer(self, cell: int) -> int:
        """Return the first layer with an edited element, or the number of layers."""
        return self.masks.first_layer(cell)
