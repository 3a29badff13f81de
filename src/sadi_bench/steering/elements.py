"""Score, rank and mask the elements of a model (arXiv 2410.12299, equations 1 to 3)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sadi_bench.models.families import Site
from sadi_bench.models.shapes import Bool, Float, Int
from sadi_bench.steering.intervention import Cell


def element_scores(
    difference: Float[Tensor, "layer width"], site: Site, num_heads: int, absolute: bool = False
) -> Float[Tensor, "layer element"]:
    """Turn a mean difference into one score an element.

    A head's score is the mean over its head_dim; a neuron's or coordinate's is its own entry.
    Signed, as in the released code, unless `absolute`.
    """
    if site == Site.head:
        difference = difference.unflatten(-1, (num_heads, -1)).mean(dim=-1)
    return difference.abs() if absolute else difference


def ranks_of(scores: Float[Tensor, "layer element"]) -> Int[Tensor, "layer element"]:
    """Rank all elements of all layers together, 0 the highest.

    Ties go to the lower flat index, so that exactly K elements have a rank below K.
    """
    order = scores.flatten().argsort(descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return ranks.view(scores.shape)


def random_ranks(
    scores: Float[Tensor, "layer element"], seed: int, draws: int
) -> Int[Tensor, "draw layer element"]:
    """Rank all elements by lot, once a draw; a draw is the same however many follow it."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randperm(scores.numel(), generator=generator) for _ in range(draws)]
    return torch.stack(drawn).int().view(draws, *scores.shape)


def shuffled_ranks(
    ranks: Int[Tensor, "layer element"], seed: int, draws: int
) -> Int[Tensor, "draw layer element"]:
    """Shuffle the ranks within each layer: every K keeps its number of elements in each layer."""
    generator, width = torch.Generator().manual_seed(seed), ranks.shape[1]
    drawn = [
        torch.stack([layer[torch.randperm(width, generator=generator)] for layer in ranks])
        for _ in range(draws)
    ]
    return torch.stack(drawn).int()


@dataclass(frozen=True)
class Masks:
    """Hold every cell's identification mask: of its draw, the elements of rank below its K."""

    ranks: Int[Tensor, "draw layer element"]
    draw: Int[Tensor, " cell"]  # counted from 0
    top_k: Int[Tensor, " cell"]  # 0 masks none
    _masked: Bool[Tensor, "cell layer"] = field(init=False)
    _first: list[int] = field(init=False)
    _placed: dict[torch.device, tuple[Tensor, ...]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        masked = self.ranks.amin(dim=2)[self.draw] < self.top_k[:, None]
        first = masked.int().argmax(dim=1).where(masked.any(dim=1), masked.shape[1])
        object.__setattr__(self, "_masked", masked)
        object.__setattr__(self, "_first", first.tolist())

    def first_layer(self, cell: int) -> int:
        """Return the first layer with a masked element, or the number of layers."""
        return self._first[cell]

    def at(
        self, layer: int, cells: Int[Tensor, " cell"], device: torch.device
    ) -> Bool[Tensor, "cell element"] | None:
        """Return one layer's masks on a device that is not waited for; None if all are empty."""
        if not self._masked[cells, layer].any():
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
) -> tuple[Masks, Float[Tensor, " cell"]]:
    """Return every cell's mask, and its `strength` less `identity`; none is masked where it is 0.

    Cells without `draw` take the first.
    """
    changes = torch.tensor([cell.params.get(strength, identity) - identity for cell in cells])
    top_k = torch.tensor([cell.params.get("top_k", 0) for cell in cells])
    draw = torch.tensor([cell.params.get("draw", 1) - 1 for cell in cells])
    every_draw = ranks.reshape(-1, *ranks.shape[-2:])
    return Masks(every_draw, draw, top_k * (changes != 0)), changes


def listed_elements(
    scores: Float[Tensor, "layer element"], ranks: Int[Tensor, "layer element"], limit: int
) -> list[tuple[int, int, float]]:
    """List the `limit` highest elements, best first: layer, index within the layer, score."""
    width = scores.shape[1]
    order = ranks.flatten().argsort()[:limit]
    best = scores.flatten()[order].tolist()
    return list(zip((order // width).tolist(), (order % width).tolist(), best, strict=True))
