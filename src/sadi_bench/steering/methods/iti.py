"""ITI: shift the heads whose probes tell right from wrong best (arXiv 2306.03341).

A' = A + alpha σ θ on the K best of all heads, from the prompt's last token on. A probe reads a
head's activations at the answers' last tokens; one split of the pairs trains and ranks the probes,
where the released code has two folds.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import Tensor
from tqdm import tqdm

from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.shapes import Float, Int
from sadi_bench.steering.activations import EncodedContrast, all_activations
from sadi_bench.steering.cells import cells_of, distance_of
from sadi_bench.steering.elements import listed_elements, ranks_of
from sadi_bench.steering.intervention import Cell, Reach, learnt
from sadi_bench.steering.method import Method
from sadi_bench.steering.method_settings import check_seed, counts, numbers
from sadi_bench.steering.ranked import RankedIntervention

TRAINING_PAIRS = 2
"""Pairs that a probe is trained on at least."""


@dataclass(frozen=True, kw_only=True)
class HeadShift(RankedIntervention):
    """Add alpha σ θ to the heads of rank below a cell's K.

    `directions` are θ, of length 1; `deviations` are σ, along them.
    """

    accuracies: Float[Tensor, "layer head"] = learnt("probe_accuracies", "layer element")
    directions: Float[Tensor, "layer head head_dim"] = learnt("directions", "layer element part")
    deviations: Float[Tensor, "layer head"] = learnt("deviations", "layer element")
    site: Site = Site.head

    CHANGE = "alpha"

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
        shift = self.deviations[layer, :, None] * self.directions[layer]  # [head head_dim]
        shift = shift.to(device, non_blocking=True)
        alpha = self.changes[cells, None].to(device, non_blocking=True) * mask
        split = values.float().unflatten(-1, shift.shape)  # [batch cell node head head_dim]
        return (split + alpha[:, None, :, None] * shift).flatten(-2).to(values.dtype)

    def elements(self) -> list[tuple[int, int, float]]:
        """List all heads by their probes' validation accuracy."""
        return listed_elements(self.accuracies, self.ranks, self.ranks.numel())


@dataclass(frozen=True)
class Iti(Method):
    """Hold ITI's settings; the defaults are the publication's."""

    top_k: int | Sequence[int] = 48
    alpha: float | Sequence[float] = 15.0
    val_ratio: float = 0.2
    direction: str = "mass_mean"
    reach: str = "from_last_prompt"
    seed: int = 0

    intervention = HeadShift
    CHOICES = {
        "direction": ("mass_mean", "probe"),
        "reach": ("last_prompt", "from_last_prompt"),
    }

    def check(self) -> None:
        """Refuse what the choices do not know of."""
        check_seed(self.seed)
        if not isinstance(self.val_ratio, int | float) or not 0 < self.val_ratio < 1:
            raise SettingError(
                f"method.val_ratio={self.val_ratio}: choose a number above 0 and below 1."
            )
        self.grid()

    def grid(self) -> tuple[Cell, ...]:
        """Lay out cell 0 and the product of top_k and alpha, top_k outermost."""
        return cells_of(
            lambda point: distance_of(point["alpha"], point["top_k"]),
            top_k=counts("top_k", self.top_k),
            alpha=numbers("alpha", self.alpha),
        )

    def fit(self, lm: LanguageModel, pairs: Sequence[EncodedContrast]) -> HeadShift:
        """Train one probe a head, rank the heads by them and freeze the grid."""
        cells, total = self.grid(), lm.num_layers * lm.num_heads
        largest = max(cell.params["top_k"] for cell in cells[1:])
        if largest > total:
            raise SettingError(
                f"method.top_k={largest}: {lm.name} has {lm.num_layers} layers × "
                f"{lm.num_heads} heads = {total} heads; choose at most {total}."
            )
        training, validation = self.split(len(pairs))
        activations = all_activations(lm, pairs, Site.head)
        accuracies, directions, deviations = [], [], []
        for layer in tqdm(range(lm.num_layers), desc="probing", unit="layer", disable=None):
            heads = activations[:, :, layer].double().unflatten(-1, (lm.num_heads, -1)).numpy()
            accuracy, weights = probe_heads(heads, training, validation)
            found = weights if self.direction == "probe" else np.subtract(*heads.mean(axis=0))
            found = found / np.linalg.norm(found, axis=-1, keepdims=True).clip(min=1e-12)
            accuracies.append(accuracy)
            directions.append(found)
            deviations.append(np.einsum("pshd,hd->psh", heads, found).std(axis=(0, 1)))
        scores = torch.from_numpy(np.stack(accuracies)).float()
        return HeadShift(
            reach=Reach(self.reach),
            cells=cells,
            ranks=ranks_of(scores),
            accuracies=scores,
            directions=torch.from_numpy(np.stack(directions)).float(),
            deviations=torch.from_numpy(np.stack(deviations)).float(),
        )

    def split(self, count: int) -> tuple[list[int], list[int]]:
        """Draw the pairs that train the probes and those that rank them."""
        held_out = math.ceil(round(count * self.val_ratio, 9))
        if (left := count - held_out) >= TRAINING_PAIRS:
            return tuple(train_test_split(range(count), test_size=held_out, random_state=self.seed))
        needed = TRAINING_PAIRS + 1
        remedy = f"choose at least task.n_pairs={needed} and method.val_ratio=0.2"
        if count >= needed:
            most = math.floor(1000 * (1 - TRAINING_PAIRS / count)) / 1000
            remedy = f"choose method.val_ratio of at most {most}, or more task.n_pairs"
        raise SettingError(
            f"method.val_ratio={self.val_ratio}: of task.n_pairs={count} it leaves {left} to train "
            f"the probes on, they need at least {TRAINING_PAIRS}; {remedy}."
        )


def probe_heads(
    heads: Float[np.ndarray, "pair side head head_dim"],
    training: Sequence[int],
    validation: Sequence[int],
) -> tuple[Float[np.ndarray, " head"], Float[np.ndarray, "head head_dim"]]:
    """Return each head's validation accuracy and probe weights; side 0 is the positive class.

    Activations are read as they are, as in the released code; a probe that has not converged
    within its steps is used.
    """

    def examples(head: int, chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        return heads[chosen, :, head].reshape(2 * len(chosen), -1), np.tile([1, 0], len(chosen))

    accuracies, weights = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for head in range(heads.shape[2]):
            probe = LogisticRegression(max_iter=1000).fit(*examples(head, training))
            accuracies.append(probe.score(*examples(head, validation)))
            weights.append(probe.coef_[0])
    return np.array(accuracies), np.stack(weights)


METHOD = Iti
