"""InferAligner: a guide's vector, where the model's own gate opens (arXiv 2401.11206).

x_l += alpha g_l θ_l at all positions of the K layers that tell right from wrong best. g_l is 1 if
a_l s_l + b_l > 0: a_l is what the unsteered model has at the prompt's last token, one gate a prompt
and layer. Published, s_l is the model's mean over harmful less harmless prompts, at their last
token. Our pairs share the prompt and part in the answer: s_l, negative less positive, is read at
the answers' last tokens. A b_l halfway between the two means there (`gate: answers`) suits no
prompt: the gate may never open. `gate: prompts` sets b_l at the median of the pairs' prompts: it
opens for the half that leans to the negative side. `measure` says how often it did.
θ_l points to what is wanted: there refusals, the negative side's; here positive answers, the
guide's mean of positive less negative. So alpha > 0 steers to them; the published sign is < 0.
Without a guide the model guides itself: gated CAA.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.loading import beside
from sadi_bench.models.shapes import Bool, Float, Int
from sadi_bench.models.spec import ModelSpec
from sadi_bench.steering.activations import (
    EncodedContrast,
    all_activations,
    mean_difference,
    prompt_activations,
)
from sadi_bench.steering.cells import cells_of, distance_of
from sadi_bench.steering.elements import listed_elements, ranks_of
from sadi_bench.steering.intervention import Cell, Reach, ReadsPrompts, learnt, passing
from sadi_bench.steering.method import Method
from sadi_bench.steering.method_settings import (
    check_layers,
    check_top_layers,
    counts,
    numbers,
)
from sadi_bench.steering.ranked import RankedIntervention


@dataclass(frozen=True, kw_only=True)
class GatedShift(RankedIntervention, ReadsPrompts):
    """Add alpha times the guide's vector to layers of rank below a cell's K whose gate is open.

    `readings[layer]` are 1 where a gate is open and 0 where not, [batch copy 1]; unbound, all are
    open.
    """

    ranks: Int[Tensor, "layer 1"] = learnt("layer_ranks", "layer 1")
    accuracies: Float[Tensor, "layer 1"] = learnt("gate_accuracies", "layer 1")
    directions: Float[Tensor, "layer width"] = learnt("gate_directions", "layer width")
    offsets: Float[Tensor, " layer"] = learnt("gate_offsets", "layer")
    guidance: Float[Tensor, "layer width"] = learnt("guidance", "layer width")
    site: Site = Site.residual
    readings: Mapping[int, Tensor] = passing(default_factory=dict)

    CHANGE = "alpha"

    def read(
        self,
        layer: int,
        values: Float[Tensor, "batch position width"],
        real: Bool[Tensor, "batch position"],
    ) -> Float[Tensor, "batch 1"]:
        """Open the gates of the prompts, by what stands at their last token."""
        prompts = torch.arange(len(values), device=values.device)
        query = values[prompts, real.sum(dim=1) - 1].float()
        direction = self.directions[layer].to(values.device, non_blocking=True)
        offset = self.offsets[layer].to(values.device, non_blocking=True)
        return (query @ direction + offset > 0).float()[:, None]

    def bound(self, readings: Mapping[int, Float[Tensor, "batch copy 1"]]) -> "GatedShift":
        """Return the edit of the prompts whose gates were read."""
        return replace(self, readings=readings)

    def measure(
        self, readings: Mapping[int, Float[Tensor, "batch 1"]]
    ) -> dict[str, Float[Tensor, "batch cell"]]:
        """Return the share of the cells' layers whose gate is open; 0 where a cell has none."""
        layers = range(len(self.ranks))
        gates = torch.cat([readings[layer].cpu() for layer in layers], dim=1)  # [batch layer]
        chosen = (self.ranks < self.masks.top_k).float()  # [layer cell]
        return {"gate_open": gates @ chosen / chosen.sum(dim=0).clamp(min=1)}

    def edit(
        self,
        layer: int,
        values: Float[Tensor, "batch copy node width"],
        cells: Int[Tensor, " cell"],
    ) -> Float[Tensor, "batch cell node width"] | None:
        """Shift in float32: half precision rounds away what is small beside the values."""
        device = values.device
        mask = self.masks.at(layer, cells, device)
        if mask is None:
            return None
        alpha = self.changes[cells, None].to(device, non_blocking=True) * mask  # [cell 1]
        if layer in self.readings:
            alpha = alpha * self.readings[layer].to(device)  # [batch cell 1]
        vector = self.guidance[layer].to(device, non_blocking=True)
        return (values.float() + alpha[..., None] * vector).to(values.dtype)

    def elements(self) -> list[tuple[int, int, float]]:
        """List all layers by their gate's accuracy on the pairs, as index 0."""
        return listed_elements(self.accuracies, self.ranks, len(self.ranks))


@dataclass(frozen=True)
class InferAligner(Method):
    """Hold InferAligner's settings; `guide` is a folder or a hub name, None the model itself."""

    guide: str | None = None
    layers: int | Sequence[int] | None = None
    top_k: int | Sequence[int] = 5
    alpha: float | Sequence[float] = 1.0
    gate: str = "prompts"
    reach: str = "all_tokens"

    intervention = GatedShift
    CHOICES = {
        "gate": ("prompts", "answers"),
        "reach": ("all_tokens", "last_prompt", "from_last_prompt"),
    }

    def check(self) -> None:
        """Refuse what the choices do not know of."""
        if self.guide is not None and not (isinstance(self.guide, str) and self.guide.strip()):
            raise SettingError(
                f"method.guide={self.guide!r}: name a folder or a hub model, or null for the "
                "model itself."
            )
        self.grid()

    def grid(self) -> tuple[Cell, ...]:
        """Lay out cell 0 and the product of top_k and alpha, top_k outermost."""
        return cells_of(
            lambda point: distance_of(point["alpha"], point["top_k"]),
            top_k=counts("top_k", self.top_k),
            alpha=numbers("alpha", self.alpha),
        )

    def fit(self, lm: LanguageModel, pairs: Sequence[EncodedContrast]) -> GatedShift:
        """Make a gate a layer from the model, a vector a layer from its guide."""
        cells = self.grid()
        layers = check_layers("layers", self.layers, lm.name, lm.num_layers)
        check_top_layers(cells, lm.name, len(layers), "to choose from")
        activations = all_activations(lm, pairs, Site.residual)
        directions, offsets, accuracies = gates_of(activations)
        if self.gate == "prompts":
            prompts = prompt_activations(lm, pairs, Site.residual)
            offsets = -torch.einsum("plw,lw->pl", prompts, directions).quantile(0.5, dim=0)
        candidates = torch.full_like(accuracies, -1.0)
        candidates[layers] = accuracies[layers]
        return GatedShift(
            reach=Reach(self.reach),
            cells=cells,
            ranks=ranks_of(candidates[:, None]),
            accuracies=accuracies[:, None],
            directions=directions,
            offsets=offsets,
            guidance=self.guidance(lm, pairs),
        )

    def guidance(
        self, lm: LanguageModel, pairs: Sequence[EncodedContrast]
    ) -> Float[Tensor, "layer width"]:
        """Average positive less negative activations in the guide, which leaves memory again."""
        if self.guide is None:
            return mean_difference(lm, pairs, Site.residual)
        dtype = str(lm.dtype).removeprefix("torch.")
        spec = ModelSpec(pretrained=self.guide, device=str(lm.device), dtype=dtype)
        with beside(spec, "method.guide") as guide:
            check_guide(lm, guide)
            return mean_difference(guide, pairs, Site.residual)


def gates_of(
    activations: Float[Tensor, "pair side layer width"],
) -> tuple[Float[Tensor, "layer width"], Float[Tensor, " layer"], Float[Tensor, " layer"]]:
    """Return s, b and the share of activations on the right side of s·a + b = 0; side 1 is > 0."""
    positive, negative = activations.double().mean(dim=0)
    directions = negative - positive
    offsets = -((positive + negative) / 2 * directions).sum(dim=-1)
    margins = torch.einsum("pslw,lw->psl", activations.double(), directions) + offsets
    right = (margins > 0) == torch.tensor([False, True])[:, None]
    return directions.float(), offsets.float(), right.double().mean(dim=(0, 1)).float()


def check_guide(lm: LanguageModel, guide: LanguageModel) -> None:
    """Refuse a guide whose vectors would not fit, or that would read other words."""
    for name, own, its in (
        ("layers", lm.num_layers, guide.num_layers),
        ("coordinates", lm.widths[Site.residual], guide.widths[Site.residual]),
    ):
        if own != its:
            raise SettingError(
                f"method.guide={guide.name}: it has {its} {name}, {lm.name} has {own}; choose a "
                "model of the same architecture and size."
            )
    if lm.tokenizer.get_vocab() != guide.tokenizer.get_vocab():
        raise SettingError(
            f"method.guide={guide.name}: its tokenizer has another vocabulary than {lm.name}'s; "
            "choose a model with the same tokenizer."
        )


METHOD = InferAligner
