"""TDA: switch off FFN units that were quiet in the prompt; a control, no steering (2408.11393).

A unit's score is the length of its activations over the prompt's tokens but the last; a layer
drops those below `threshold` times the mean score of its units, at the last prompt token and all
later ones. Published for speed; here it shows what a change that aims at nothing does. The paper
leaves the last prompt token whole, where answers of one token would not change. A gated FFN's unit
is read before it meets `up`, as everywhere here; what the thresholds are parts of is our choice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.shapes import Bool, Float, Int
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.cells import cells_of, distance_of
from sadi_bench.steering.intervention import Cell, Reach, ReadsPrompts, passing
from sadi_bench.steering.method import Method
from sadi_bench.steering.method_settings import numbers


@dataclass(frozen=True, kw_only=True)
class QuietUnits(ReadsPrompts):
    """Set to 0 what was quiet in the prompts that were read; unbound, nothing was quiet.

    `readings[layer]` are scores [batch copy unit].
    """

    num_layers: int
    site: Site = Site.neuron
    reach: Reach = Reach.from_last_prompt
    readings: Mapping[int, Tensor] = passing(default_factory=dict)

    @cached_property
    def _thresholds(self) -> Tensor:
        return torch.tensor([float(cell.params.get("threshold", 0)) for cell in self.cells])

    def first_layer(self, cell: int) -> int:
        """Return layer 0, or the number of layers for a threshold of 0."""
        return 0 if self._thresholds[cell] else self.num_layers

    def read(
        self,
        layer: int,  # noqa: ARG002
        values: Float[Tensor, "batch position unit"],
        real: Bool[Tensor, "batch position"],
    ) -> Float[Tensor, "batch unit"]:
        """Score the units; a prompt of one token has no token before its last, and scores 0."""
        before = torch.zeros_like(real)
        before[:, :-1] = real[:, 1:]
        return (values.float() * before[..., None]).square().sum(dim=1).sqrt()

    def bound(self, readings: Mapping[int, Float[Tensor, "batch copy unit"]]) -> "QuietUnits":
        """Return the edit of the prompts that were read."""
        return replace(self, readings=readings)

    def measure(
        self, readings: Mapping[int, Float[Tensor, "batch unit"]]
    ) -> dict[str, Float[Tensor, "batch cell"]]:
        """Return the share of FFN units that are off, a mean over the layers."""
        cells = torch.arange(len(self.cells))
        shares = [
            self._quiet(scores[:, None], cells).float().mean(dim=-1).cpu()
            for scores in readings.values()
        ]
        return {"ffn_sparsity": torch.stack(shares).mean(dim=0)}

    def _quiet(
        self, scores: Float[Tensor, "batch copy unit"], cells: Int[Tensor, " cell"]
    ) -> Bool[Tensor, "batch cell unit"]:
        thresholds = self._thresholds[cells, None].to(scores.device, non_blocking=True)
        return scores < thresholds * scores.mean(dim=-1, keepdim=True)

    def edit(
        self,
        layer: int,
        values: Float[Tensor, "batch copy node width"],
        cells: Int[Tensor, " cell"],
    ) -> Float[Tensor, "batch cell node width"] | None:
        """Set the quiet units of every cell to 0."""
        if layer not in self.readings or not self._thresholds[cells].any():
            return None
        quiet = self._quiet(self.readings[layer].to(values.device), cells)
        return values.masked_fill(quiet[:, :, None], 0)


@dataclass(frozen=True)
class Tda(Method):
    """Hold TDA's settings: the thresholds, as parts of a layer's mean score."""

    threshold: float | Sequence[float] = 0.5

    intervention = QuietUnits
    control = True

    def check(self) -> None:
        """Refuse wrong thresholds."""
        self.grid()

    def grid(self) -> tuple[Cell, ...]:
        """Lay out cell 0 and the thresholds."""
        thresholds = numbers("threshold", self.threshold)
        if min(thresholds) < 0:
            raise SettingError(
                f"method.threshold={min(thresholds)}: choose a number of at least 0, or a list of "
                "them; 0 drops no unit."
            )
        return cells_of(lambda point: distance_of(point["threshold"]), threshold=thresholds)

    def fit(self, lm: LanguageModel, pairs: Sequence[EncodedContrast]) -> QuietUnits:  # noqa: ARG002
        """Learn nothing: every prompt sets its own thresholds."""
        return QuietUnits(cells=self.grid(), num_layers=lm.num_layers)


METHOD = Tda
