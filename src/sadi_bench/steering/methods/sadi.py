"""SADI: scale the elements that contrastive pairs single out (arXiv 2410.12299).

A' = A + δ (A ⊙ mask), δ = strength - 1, at the prompt's last token; its ablations (Table 4) take
the mask by lot (`elements: random`) or add a fixed vector, A' = A + δ (D ⊙ mask) (equation 6).
- One random mask says little: `draws: N` scores N of them. A random mask mostly edits other layers
  than SADI's; `match: layer` draws as many elements in each layer as SADI's own mask has there.
- D is mostly shorter than A: `vector: fixed_norm` adds δ c (D ⊙ mask), c = ‖A ⊙ mask‖ / ‖D ⊙ mask‖
  in each layer and at each position, so only its direction differs from the adaptive vector's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.shapes import Bool, Float, Int
from sadi_bench.steering.activations import EncodedContrast, mean_difference
from sadi_bench.steering.cells import cells_of, distance_of
from sadi_bench.steering.elements import (
    element_scores,
    listed_elements,
    random_ranks,
    ranks_of,
    shuffled_ranks,
)
from sadi_bench.steering.intervention import Cell, Reach, learnt
from sadi_bench.steering.method import Method
from sadi_bench.steering.method_settings import (
    check_choices,
    check_count,
    check_seed,
    counts,
    numbers,
)
from sadi_bench.steering.ranked import RankedIntervention

NAMES = {"head": "heads", "neuron": "neurons", "hidden": "coordinates"}
VECTORS = ("adaptive", "fixed", "fixed_norm")
LISTED_ELEMENTS = 1000
"""Elements that a run lists at least, where the model has as many."""


@dataclass(frozen=True, kw_only=True)
class MaskedSteering(RankedIntervention):
    """Scale (or shift) the elements of rank below a cell's K by its strength.

    `vector` says what is added: adaptive, fixed or fixed_norm, as in `Sadi`.
    """

    scores: Float[Tensor, "layer element"] = learnt("element_scores", "layer element")
    difference: Float[Tensor, "layer width"] = learnt("mean_difference", "layer width")
    vector: str = "adaptive"

    IDENTITY = 1.0

    def __post_init__(self) -> None:
        check_choices(self, {"vector": VECTORS})

    def edit(
        self,
        layer: int,
        values: Float[Tensor, "batch copy node width"],
        cells: Int[Tensor, " cell"],
    ) -> Float[Tensor, "batch cell node width"] | None:
        """Add δ times the vector in float32: half precision overflows at large strengths."""
        mask = self.masks.at(layer, cells, values.device)
        if mask is None:
            return None
        delta = self.changes[cells, None].to(values.device, non_blocking=True) * mask
        delta = delta[:, None, :, None]  # [cell node element part]
        split = values.float().unflatten(-1, (mask.shape[1], -1))
        if self.vector == "adaptive":
            new = split * (1 + delta)
        else:
            new = split + delta * self._fixed(layer, split, mask)
        return new.flatten(-2).to(values.dtype)

    def _fixed(
        self,
        layer: int,
        split: Float[Tensor, "batch copy node element part"],
        mask: Bool[Tensor, "cell element"],
    ) -> Float[Tensor, "*any element part"]:
        """Return D; for fixed_norm as long, within the mask, as the values are."""
        vector = self.difference[layer].to(split.device, non_blocking=True)
        vector = vector.unflatten(0, (mask.shape[1], -1))
        if self.vector == "fixed":
            return vector
        own = split.square().sum(dim=-1).masked_fill(~mask[:, None], 0).sum(dim=-1).sqrt()
        its = vector.square().sum(dim=-1).masked_fill(~mask, 0).sum(dim=-1).sqrt()[:, None]
        ratio = torch.where(its > 0, own / its, 0)  # [batch cell node]
        return ratio[..., None, None] * vector

    def elements(self) -> list[tuple[int, int, float]]:
        """List the elements that the largest K needs, and more; of several draws the first."""
        limit = max(LISTED_ELEMENTS, 2 * int(self.masks.top_k.max()))
        return listed_elements(self.scores, self.masks.ranks[0], limit)


@dataclass(frozen=True)
class Sadi(Method):
    """Hold SADI's switches; the defaults are those that gave the paper's numbers."""

    site: str = "head"
    top_k: int | Sequence[int] = 6
    strength: float | Sequence[float] | None = 5.0
    delta: float | Sequence[float] | None = None
    patch: str = "clean"
    hidden_site: str = "mlp_out"
    score: str = "signed"
    elements: str = "top"
    draws: int = 1
    match: str = "none"
    vector: str = "adaptive"
    reach: str = "last_prompt"
    seed: int = 0

    intervention = MaskedSteering
    CHOICES = {
        "site": ("head", "neuron", "hidden"),
        "patch": ("clean", "inflight"),
        "hidden_site": ("mlp_out", "residual"),
        "score": ("signed", "abs"),
        "elements": ("top", "random"),
        "match": ("none", "layer"),
        "vector": VECTORS,
        "reach": ("last_prompt", "from_last_prompt"),
    }

    def check(self) -> None:
        """Refuse what the choices do not know of."""
        check_seed(self.seed)
        check_count("draws", self.draws)
        for name, alone in (("draws", 1), ("match", "none")):
            if self.elements == "top" and (value := getattr(self, name)) != alone:
                raise SettingError(
                    f"method.{name}={value}: method.elements=top draws nothing by lot; choose "
                    f"{alone}, or method.elements=random."
                )
        self.grid()

    def activation_site(self) -> Site:
        """Return the site that is read and edited."""
        if self.site == "hidden" and self.hidden_site == "residual":
            return Site.residual
        return Site(self.site)

    def grid(self) -> tuple[Cell, ...]:
        """Lay out cell 0 and the product of draw (where several), top_k and strength."""
        if (self.strength is None) == (self.delta is None):
            raise SettingError(
                "method.strength and method.delta: give one of them and set the other to null "
                "(delta = strength - 1)."
            )
        top_ks = counts("top_k", self.top_k)
        strengths = (
            numbers("strength", self.strength)
            if self.delta is None
            else [d + 1 for d in numbers("delta", self.delta)]
        )
        return cells_of(
            lambda point: distance_of(point["strength"] - 1, point["top_k"]),
            **({"draw": range(1, self.draws + 1)} if self.draws > 1 else {}),
            top_k=top_ks,
            strength=strengths,
        )

    def fit(self, lm: LanguageModel, pairs: Sequence[EncodedContrast]) -> MaskedSteering:
        """Rank the elements by the pairs' mean difference and freeze the grid."""
        cells, site = self.grid(), self.activation_site()
        total = lm.num_layers * lm.num_elements(site)
        largest = max(cell.params["top_k"] for cell in cells[1:])
        if largest > total:
            things = NAMES[self.site]
            raise SettingError(
                f"method.top_k={largest}: {lm.name} has {lm.num_layers} layers × "
                f"{lm.num_elements(site)} {things} = {total} {things}; choose at most {total}."
            )
        difference = mean_difference(lm, pairs, site)
        scores = element_scores(difference, site, lm.num_heads, self.score == "abs")
        return MaskedSteering(
            site=site,
            reach=Reach(self.reach),
            cells=cells,
            ranks=self.ranks(scores),
            scores=scores,
            difference=difference,
            overwrites=self.patch == "clean",
            vector=self.vector,
        )

    def ranks(self, scores: Float[Tensor, "layer element"]) -> Int[Tensor, "*draw layer element"]:
        """Rank the elements by their scores, or by lot."""
        if self.elements == "top":
            return ranks_of(scores)
        if self.match == "layer":
            drawn = shuffled_ranks(ranks_of(scores), self.seed, self.draws)
        else:
            drawn = random_ranks(scores, self.seed, self.draws)
        return drawn if self.draws > 1 else drawn[0]


METHOD = Sadi
