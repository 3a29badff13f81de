"""HPR: turn what a probe calls negative towards the positive side, length kept (arXiv 2409.10053).

On the K layers whose probes tell right from wrong best: where wᵀx < 0, x turns in the plane of x
and its mirror image x - 2 w (wᵀx) / ‖w‖² by strength times the angle that a network predicts.
Read at the answers' last tokens. Not told in the paper, and chosen here: the network learns from
negative activations alone, for only they are turned; it halves its width three times, GELU between
(the released script's); the probe, a convex problem, starts at 0; Adam at a constant rate.

The gate and the angle are used at other positions than they were learnt at. They are learnt from
the last tokens of answers. They decide at the last prompt token, where no answer has begun, and at
the answer's tokens behind it. At the last prompt token the probe may take the same side of wᵀx = 0
for nearly every prompt; then nearly every prompt is turned, or nearly none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.shapes import Float, Int
from sadi_bench.steering.activations import EncodedContrast, all_activations
from sadi_bench.steering.cells import cells_of, distance_of
from sadi_bench.steering.elements import listed_elements, ranks_of
from sadi_bench.steering.intervention import Cell, Reach, learnt
from sadi_bench.steering.method import Method
from sadi_bench.steering.method_settings import (
    check_count,
    check_seed,
    check_top_layers,
    counts,
    numbers,
)
from sadi_bench.steering.ranked import RankedIntervention
from sadi_bench.steering.rotation import Networks, Recipe, angles, fit_angles, fit_probes, turn


@dataclass(frozen=True, kw_only=True)
class PseudoRotation(RankedIntervention):
    """Turn activations of the layers of rank below a cell's K by its strength of the angle.

    `probes` are of length 1; network 0 is the best layer's, and so on down to the largest K.
    Layer by layer of the networks: `weights` [net out in] and `biases` [net out].
    """

    ranks: Int[Tensor, "layer 1"] = learnt("layer_ranks", "layer 1")
    accuracies: Float[Tensor, "layer 1"] = learnt("probe_accuracies", "layer 1")
    probes: Float[Tensor, "layer width"] = learnt("probes", "layer width")
    weights: tuple[Tensor, ...] = learnt("angle_weights", "net _ _")
    biases: tuple[Tensor, ...] = learnt("angle_biases", "net _")
    site: Site = Site.residual

    @cached_property
    def _placed(self) -> dict[torch.device, tuple[Tensor, Networks]]:
        return {}

    def edit(
        self,
        layer: int,
        values: Float[Tensor, "batch copy node width"],
        cells: Int[Tensor, " cell"],
    ) -> Float[Tensor, "batch cell node width"] | None:
        """Turn in float32: half precision would not keep the length."""
        device = values.device
        mask = self.masks.at(layer, cells, device)
        if mask is None:
            return None
        if device not in self._placed:
            layers = zip(self.weights, self.biases, strict=True)
            networks = [(w.to(device), b.to(device)) for w, b in layers]
            self._placed[device] = self.probes.to(device), networks
        probes, networks = self._placed[device]
        slot = slice(int(self.ranks[layer]), int(self.ranks[layer]) + 1)
        flat = values.float().flatten(0, 2)
        angle = angles(flat[:, None], [(w[slot], b[slot]) for w, b in networks])
        angle = angle.view(values.shape[:3])
        strength = self.changes[cells, None].to(device, non_blocking=True)
        turned = turn(values.float(), probes[layer], strength * angle)
        negative = (values.float() @ probes[layer] < 0) & mask
        return torch.where(negative[..., None], turned.to(values.dtype), values)

    def elements(self) -> list[tuple[int, int, float]]:
        """List all layers by their probes' validation accuracy, as index 0."""
        return listed_elements(self.accuracies, self.ranks, len(self.ranks))


@dataclass(frozen=True)
class Hpr(Method):
    """Hold HPR's settings; the defaults are the publication's, val_ratio aside."""

    top_k: int | Sequence[int] = 5
    strength: float | Sequence[float] = 1.0
    learning_rate: float = 5e-4
    epochs: int = 5
    batch_size: int = 16
    val_ratio: float = 0.2
    reach: str = "from_last_prompt"
    seed: int = 0

    intervention = PseudoRotation
    CHOICES = {"reach": ("last_prompt", "from_last_prompt")}

    def check(self) -> None:
        """Refuse what the choices do not know of."""
        check_seed(self.seed)
        for name in ("epochs", "batch_size"):
            check_count(name, getattr(self, name))
        for name, above in (("learning_rate", math.inf), ("val_ratio", 1)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < above:
                bound = "" if above == math.inf else f" and below {above}"
                raise SettingError(f"method.{name}={value}: choose a number above 0{bound}.")
        self.grid()

    def grid(self) -> tuple[Cell, ...]:
        """Lay out cell 0 and the product of top_k and strength, top_k outermost."""
        return cells_of(
            lambda point: distance_of(point["strength"], point["top_k"]),
            top_k=counts("top_k", self.top_k),
            strength=numbers("strength", self.strength),
        )

    def fit(self, lm: LanguageModel, pairs: Sequence[EncodedContrast]) -> PseudoRotation:
        """Train a probe a layer, and a network on each of the best layers."""
        cells = self.grid()
        largest = check_top_layers(cells, lm.name, lm.num_layers)
        training, validation = self.split(len(pairs))
        activations = all_activations(lm, pairs, Site.residual).to(lm.device)
        recipe = Recipe(self.learning_rate, self.epochs, self.batch_size, self.seed)
        probes = fit_probes(activations[training], recipe)
        positive = torch.einsum("pslw,lw->psl", activations[validation], probes) >= 0
        right = positive == torch.tensor([True, False], device=lm.device)[:, None]
        scores = right.cpu().double().mean(dim=(0, 1)).float()[:, None]  # MPS has no float64
        ranks = ranks_of(scores)
        best = ranks[:, 0].argsort()[:largest].to(lm.device)
        networks = fit_angles(activations[training][:, :, best], recipe)
        return PseudoRotation(
            reach=Reach(self.reach),
            cells=cells,
            ranks=ranks,
            accuracies=scores,
            probes=F.normalize(probes, dim=1).cpu(),
            weights=tuple(weights.cpu() for weights, _ in networks),
            biases=tuple(biases.cpu() for _, biases in networks),
        )

    def split(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw the pairs that train and those that rank the layers; both have both classes."""
        held_out = math.ceil(round(count * self.val_ratio, 9))
        if held_out >= count:
            raise SettingError(
                f"method.val_ratio={self.val_ratio}: of task.n_pairs={count} it leaves none to "
                "train on, and a probe needs both classes; choose at least task.n_pairs=2 and "
                "method.val_ratio of at most 0.5."
            )
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed))
        return order[held_out:], order[:held_out]


METHOD = Hpr
