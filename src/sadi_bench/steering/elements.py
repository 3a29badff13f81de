"""Score, rank and mask the elements of a model (arXiv 2410.12299, equations 1 to 3)."""

import torch
from torch import Tensor

from sadi_bench.models.families import Site
from sadi_bench.models.shapes import Float, Int


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


def listed_elements(
    scores: Float[Tensor, "layer element"], ranks: Int[Tensor, "layer element"], limit: int
) -> list[tuple[int, int, float]]:
    """List the `limit` highest elements, best first: layer, index within the layer, score."""
    width = scores.shape[1]
    order = ranks.flatten().argsort()[:limit]
    best = scores.flatten()[order].tolist()
    return list(zip((order // width).tolist(), (order % width).tolist(), best, strict=True))
