"""What stands in front of the branches: the prompts' prefix, read on the way where it is asked."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sadi_bench.models.hooks import edited
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.packing import Prefix, run_prefix
from sadi_bench.models.shapes import Float
from sadi_bench.steering.intervention import Intervention, Reach, ReadsPrompts


def run_prompts(
    lm: LanguageModel, prompts: Sequence[Sequence[int]], intervention: Intervention
) -> tuple[Prefix, dict[int, Tensor]]:
    """Run the prompts unsteered; return what the branches stand behind and what was read.

    The prefix is empty where an intervention reaches all tokens: the trees hold the prompts then.
    Read is one tensor [batch ...] a layer, nothing for an intervention that does not ask.
    """
    whole = intervention.reach == Reach.all_tokens
    readings: dict[int, Tensor] = {}
    if isinstance(intervention, ReadsPrompts):
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        real = lm.place(torch.arange(int(lengths.max())) < lengths[:, None])

        def read(layer: int, raw: Tensor) -> None:
            values = raw.reshape(*real.shape, raw.shape[-1])
            readings[layer] = intervention.read(layer, values, real.to(raw.device))

        with edited(lm.network, lm.family, intervention.site, read):
            prefix = run_prefix(lm, prompts, with_last=True)
        if not whole:
            return prefix, readings
    return run_prefix(lm, [prompt[:1] for prompt in prompts] if whole else prompts), readings


def bound_to(
    readings: Mapping[int, Tensor], intervention: Intervention, owners: Tensor | None = None
) -> Intervention:
    """Bind an intervention to the prompts that were read, each the same for all its copies.

    Or to rows, each a copy in a batch of one: `owners` [row] says whose prompt each continues.
    """
    if not isinstance(intervention, ReadsPrompts):
        return intervention
    if owners is None:
        return intervention.bound({layer: found[:, None] for layer, found in readings.items()})
    rows = {layer: found[owners.to(found.device)][None] for layer, found in readings.items()}
    return intervention.bound(rows)


def measured_of(
    readings: Mapping[int, Tensor], intervention: Intervention, num_prompts: int
) -> list[dict[str, Float[np.ndarray, " cell"]]]:
    """Say of every prompt what an intervention that reads prompts does to it, cell by cell."""
    if not isinstance(intervention, ReadsPrompts):
        return [{} for _ in range(num_prompts)]
    found = {name: part.cpu().numpy() for name, part in intervention.measure(readings).items()}
    return [{name: part[i] for name, part in found.items()} for i in range(num_prompts)]
