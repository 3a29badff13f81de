"""CAA: add the mean difference of contrastive pairs to the residual stream (arXiv 2312.06681).

A' = A + multiplier v, at the output of one decoder block, from the prompt's last token on; v is the
mean of A+ - A- there, read at the answers' last tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.shapes import Float, Int
from sadi_bench.steering.activations import EncodedContrast, mean_difference
from sadi_bench.steering.cells import cells_of, distance_of
from sadi_bench.steering.elements import listed_elements, ranks_of
from sadi_bench.steering.intervention import Cell, Intervention, Reach, learnt
from sadi_bench.steering.method import Method
from sadi_bench.steering.method_settings import numbers

WHOLE = "a whole number of at least 0"


@dataclass(frozen=True, kw_only=True)
class LayerShift(Intervention):
    """Add a multiple of one layer's vector to what leaves that layer."""

    difference: Float[Tensor, "layer width"] = learnt("mean_difference", "layer width")
    site: Site = Site.residual

    @cached_property
    def _layer(self) -> list[int]:
        params, nowhere = [cell.params for cell in self.cells], len(self.difference)
        return [int(p["layer"]) if p.get("multiplier") else nowhere for p in params]

    @cached_property
    def _multiplier(self) -> list[float]:
        return [float(cell.params.get("multiplier", 0)) for cell in self.cells]

    def first_layer(self, cell: int) -> int:
        """Return the cell's layer, or the number of layers."""
        return self._layer[cell]

    def edit(
        self,
        layer: int,
        values: Float[Tensor, "batch copy node width"],
        cells: Int[Tensor, " cell"],
    ) -> Float[Tensor, "batch cell node width"] | None:
        """Shift in float32: half precision rounds away what is small beside the values."""
        here = [self._multiplier[c] if self._layer[c] == layer else 0.0 for c in cells.tolist()]
        if not any(here):
            return None
        strength = torch.tensor(here)[:, None, None].to(values.device, non_blocking=True)
        vector = self.difference[layer].to(values.device, non_blocking=True)
        return (values.float() + strength * vector).to(values.dtype)

    def elements(self) -> list[tuple[int, int, float]]:
        """List all layers by the length of their vector, as index 0."""
        lengths = self.difference.norm(dim=1, keepdim=True)
        return listed_elements(lengths, ranks_of(lengths), len(lengths))


@dataclass(frozen=True)
class Caa(Method):
    """Hold CAA's settings; `layer` counts from 0, None is every layer in turn."""

    layer: int | Sequence[int] | None = None
    multiplier: float | Sequence[float] = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
    reach: str = "from_last_prompt"

    intervention = LayerShift
    CHOICES = {"reach": ("last_prompt", "from_last_prompt")}

    def check(self) -> None:
        """Refuse wrong layers and multipliers."""
        self.grid(1)

    def grid(self, num_layers: int) -> tuple[Cell, ...]:
        """Lay out cell 0 and the product of layer and multiplier, layer outermost."""
        layers = list(range(num_layers))
        if self.layer is not None:
            typed = numbers("layer", self.layer, WHOLE)
            for layer in typed:
                if layer < 0 or layer != int(layer):
                    raise SettingError(f"method.layer={layer}: choose {WHOLE}.")
            layers = [int(layer) for layer in typed]
        return cells_of(
            lambda point: distance_of(point["multiplier"]),
            layer=layers,
            multiplier=numbers("multiplier", self.multiplier),
        )

    def fit(self, lm: LanguageModel, pairs: Sequence[EncodedContrast]) -> LayerShift:
        """Average the pairs' differences in every layer and freeze the grid."""
        cells = self.grid(lm.num_layers)
        highest = max(cell.params["layer"] for cell in cells[1:])
        if highest >= lm.num_layers:
            raise SettingError(
                f"method.layer={highest}: {lm.name} has {lm.num_layers} layers, counted from 0; "
                f"choose at most {lm.num_layers - 1}."
            )
        difference = mean_difference(lm, pairs, Site.residual)
        return LayerShift(reach=Reach(self.reach), cells=cells, difference=difference)


METHOD = Caa
