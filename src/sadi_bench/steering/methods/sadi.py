"""SADI: scale the elements that contrastive pairs single out (arXiv 2410.12299).

A' = A + δ (A ⊙ mask), δ = strength - 1, at the prompt's last token; its ablations (Table 4) take
the mask by lot (`elements: random`) or add a fixed vector, A' = A + δ (D ⊙ mask) (equation 6).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.shapes import Float, Int
from sadi_bench.steering.activations import EncodedContrast, mean_difference
from sadi_bench.steering.elements import element_scores, listed_elements, random_ranks, ranks_of
from sadi_bench.steering.grid import cells_of, counts, numbers
from sadi_bench.steering.intervention import Cell, Reach

NAMES = {"head": "heads", "neuron": "neurons", "hidden": "coordinates"}
PUBLISHED = {
    ("top", "adaptive"): "sadi",
    ("random", "adaptive"): "random",
    ("top", "fixed"): "fixed",
}
LISTED_ELEMENTS = 1000
"""Elements that a run lists at least, where the model has as many."""


@dataclass(frozen=True)
class MaskedSteering:
    """Scale (or shift) the elements of rank below a cell's K by its strength.

    `vector` is added where given, else the values themselves are (adaptive).
    """

    site: Site
    reach: Reach
    cells: tuple[Cell, ...]
    ranks: Int[Tensor, "layer element"]
    scores: Float[Tensor, "layer element"]
    difference: Float[Tensor, "layer width"]
    overwrites: bool
    vector: Float[Tensor, "layer width"] | None = None
    _top_k: Tensor = field(init=False)
    _delta: Tensor = field(init=False)
    _lowest_rank: list[int] = field(init=False)
    _placed: dict[torch.device, tuple[Tensor, ...]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        params = [cell.params for cell in self.cells]
        set_ = object.__setattr__
        set_(self, "_top_k", torch.tensor([p.get("top_k", 0) for p in params]))
        set_(self, "_delta", torch.tensor([p.get("strength", 1.0) - 1.0 for p in params]))
        set_(self, "_lowest_rank", self.ranks.min(dim=1).values.tolist())

    def first_layer(self, cell: int) -> int:
        """Return the first layer with a masked element, or the number of layers."""
        if self._delta[cell] == 0:
            return len(self.ranks)
        layers = (self.ranks < self._top_k[cell]).any(dim=1).nonzero()
        return int(layers[0]) if len(layers) else len(self.ranks)

    def edit(
        self,
        layer: int,
        values: Float[Tensor, "batch copy node width"],
        cells: Int[Tensor, " cell"],
    ) -> Float[Tensor, "batch cell node width"] | None:
        """Apply equation 5 (or 6) in float32: half precision overflows at large strengths."""
        if self._lowest_rank[layer] >= self._top_k[cells].max():
            return None
        if (device := values.device) not in self._placed:
            learnt = (self.ranks, self._top_k, self._delta)
            self._placed[device] = tuple(tensor.to(device) for tensor in learnt)
        ranks, top_k, delta = self._placed[device]
        cells = cells.to(device, non_blocking=True)
        ranks = ranks[layer]
        masked = ranks < top_k[cells, None]  # [cell element]
        delta = (delta[cells, None] * masked)[:, None, :, None]
        split = values.float().unflatten(-1, (len(ranks), -1))  # [batch copy node element part]
        if self.vector is None:
            new = split * (1 + delta)
        else:
            new = split + delta * self.vector[layer].to(values.device).unflatten(
                0, (len(ranks), -1)
            )
        return new.flatten(-2).to(values.dtype)

    def tensors(self) -> dict[str, Tensor]:
        """Return the mean difference [layer width], the scores and the ranks [layer element]."""
        return {
            "mean_difference": self.difference,
            "element_scores": self.scores.contiguous(),
            "element_ranks": self.ranks,
        }

    def elements(self) -> list[tuple[int, int, float]]:
        """List the elements that the largest K needs, and more."""
        limit = max(LISTED_ELEMENTS, 2 * int(self._top_k.max()))
        return listed_elements(self.scores, self.ranks, limit)


@dataclass(frozen=True)
class Sadi:
    """Hold SADI's switches; the defaults are those that gave the paper's numbers."""

    site: str = "head"
    top_k: int | Sequence[int] = 6
    strength: float | Sequence[float] | None = 5.0
    delta: float | Sequence[float] | None = None
    patch: str = "clean"
    hidden_site: str = "mlp_out"
    score: str = "signed"
    elements: str = "top"
    vector: str = "adaptive"
    reach: str = "last_prompt"
    seed: int = 0

    CHOICES = {
        "site": ("head", "neuron", "hidden"),
        "patch": ("clean", "inflight"),
        "hidden_site": ("mlp_out", "residual"),
        "score": ("signed", "abs"),
        "elements": ("top", "random"),
        "vector": ("adaptive", "fixed"),
        "reach": ("last_prompt", "from_last_prompt"),
    }

    def __post_init__(self) -> None:
        for name, allowed in self.CHOICES.items():
            if getattr(self, name) not in allowed:
                raise SettingError(
                    f"method.{name}={getattr(self, name)}: choose one of {', '.join(allowed)}."
                )
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise SettingError(f"method.seed={self.seed}: choose a whole number, 0 to {2**32 - 1}.")
        self.grid()

    def departures(self) -> list[str]:
        """List the switches that are not as in the released code."""
        names = ("patch", "hidden_site", "score", "reach")
        default = {field.name: field.default for field in fields(self)}
        return [f"{n}={getattr(self, n)}" for n in names if getattr(self, n) != default[n]]

    def published_name(self) -> str | None:
        """Return what the paper's tables have numbers for, or None."""
        kind = PUBLISHED.get((self.elements, self.vector))
        return f"{kind}-{self.site}" if kind and not self.departures() else None

    def activation_site(self) -> Site:
        """Return the site that is read and edited."""
        if self.site == "hidden" and self.hidden_site == "residual":
            return Site.residual
        return Site(self.site)

    def grid(self) -> tuple[Cell, ...]:
        """Lay out cell 0 and the product of top_k and strength, top_k outermost."""
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
        return cells_of(top_k=top_ks, strength=strengths)

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
        ranks = random_ranks(scores, self.seed) if self.elements == "random" else ranks_of(scores)
        return MaskedSteering(
            site=site,
            reach=Reach(self.reach),
            cells=cells,
            ranks=ranks,
            scores=scores,
            difference=difference,
            overwrites=self.patch == "clean",
            vector=difference if self.vector == "fixed" else None,
        )


METHOD = Sadi
