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


def random_ranks(scores: Float[Tensor, "layer element"], seed: int) -> Int[Tensor, "layer element"]:
    """Rank the elements by lot, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(scores.numel(), generator=generator).view(scores.shape)


@dataclass(frozen=True)
class Masks:
    """Hold every cell's identification mask: the elements of rank below its K (0: none)."""

    ranks: Int[Tensor, "layer element"]
    top_k: Int[Tensor, " cell"]
    _lowest: list[int] = field(init=False)
    _placed: dict[torch.device, tuple[Tensor, Tensor]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_lowest", self.ranks.min(dim=1).values.tolist())

    def first_layer(self, cell: int) -> int:
        """Return the first layer with a masked element, or the number of layers."""
        layers = (self.ranks < self.top_k[cell]).any(dim=1).nonzero()
        return int(layers[0]) if len(layers) else len(self.ranks)

    def at(
        self, layer: int, cells: Int[Tensor, " cell"], device: torch.device
    ) -> Bool[Tensor, "cell element"] | None:
        """Return one layer's masks on a device that is not waited for; None if all are empty."""
        if self._lowest[layer] >= self.top_k[cells].max():
            return None
        if device not in self._placed:
            self._placed[device] = self.ranks.to(device), self.top_k.to(device)
        ranks, top_k = self._placed[device]
        return ranks[layer] < top_k[cells.to(device, non_blocking=True), None]


def graded_masks(
    ranks: Int[Tensor, "layer element"], cells: Sequence[Cell], strength: str
) -> tuple[Masks, Float[Tensor, " cell"]]:
    """Return every cell's mask, of its top_k, and its `strength`; none is masked where it is 0."""
    strengths = torch.tensor([float(cell.params.get(strength, 0)) for cell in cells])
    top_k = torch.tensor([cell.params.get("top_k", 0) for cell in cells])
    return Masks(ranks, top_k * (strengths != 0)), strengths


def listed_elements(
    scores: Float[Tensor, "layer element"], ranks: Int[Tensor, "layer element"], limit: int
) -> list[tuple[int, int, float]]:
    """List the `limit` highest elements, best first: layer, index within the layer, score."""
    width = scores.shape[1]
    order = ranks.flatten().argsort()[:limit]
    best = scores.flatten()[order].tolist()
    return list(zip((order // width).tolist(), (order % width).tolist(), best, strict=True))
