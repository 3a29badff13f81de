"""Last-token activations of contrastive pairs: two branches behind one prefix."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from sadi_bench.models.families import Site
from sadi_bench.models.hooks import Edit, edited
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.memory import memory_error, out_of_memory
from sadi_bench.models.packing import (
    Layout,
    layout_of,
    run_branches,
    run_prefix,
)
from sadi_bench.models.shapes import Float

TOKENS_PER_PASS = 4096


@dataclass(frozen=True)
class EncodedContrast:
    """Hold a contrastive pair as tokens; both answers follow the same prompt."""

    prompt: tuple[int, ...]
    positive: tuple[int, ...]
    negative: tuple[int, ...]
    doc_id: int


def pair_activations(
    lm: LanguageModel, pairs: Sequence[EncodedContrast], site: Site
) -> Iterator[tuple[list[int], Float[Tensor, "pair side layer width"]]]:
    """Yield, pass by pass, the pairs' numbers and their activations.

    Side 0 is the positive answer, side 1 the negative; read at each answer's last token, float32.
    """
    left = sorted(range(len(pairs)), key=lambda i: -len(pairs[i].prompt))
    budget = TOKENS_PER_PASS
    bar = tqdm(total=len(pairs), desc="reading pairs", unit="pair", disable=None)
    with torch.inference_mode(), bar:
        while left:
            batch = left[: max(1, budget // (len(pairs[left[0]].prompt) + 8))]
            try:
                found = _read(lm, [pairs[i] for i in batch], site)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise memory_error(lm, error) from error
                budget //= 2
                continue
            left = left[len(batch) :]
            yield batch, found
            bar.update(len(batch))


def mean_difference(
    lm: LanguageModel, pairs: Sequence[EncodedContrast], site: Site
) -> Float[Tensor, "layer width"]:
    """Average positive less negative activations over the pairs, in float32.

    arXiv 2410.12299, equations 1 and 2. Summed on the way in float64: memory does not grow with
    the number of pairs.
    """
    total: Tensor | float = 0.0
    for _, activations in pair_activations(lm, pairs, site):
        total = total + (activations[:, 0].double() - activations[:, 1].double()).sum(dim=0)
    return (total / len(pairs)).float()


def _read(
    lm: LanguageModel, pairs: list[EncodedContrast], site: Site
) -> Float[Tensor, "pair side layer width"]:
    layout = layout_of(
        [p.prompt for p in pairs],
        [(p.positive, p.negative) for p in pairs],
        packed=lm.packs,
        keep_last=True,
    )
    ends = torch.tensor([[path[-1] for path in paths] for paths in layout.paths])
    seen: dict[int, Tensor] = {}
    prefix = run_prefix(lm, [p.prompt for p in pairs])
    with edited(lm.network, lm.family, site, _note_into(seen, layout, ends)):
        run_branches(lm, prefix, layout, 1)
    return torch.stack([seen[layer] for layer in range(lm.num_layers)], dim=2)


def _note_into(seen: dict[int, Tensor], layout: Layout, ends: Tensor) -> Edit:
    """Make an edit that notes the values at the branches' ends and changes nothing."""
    batch = torch.arange(len(ends))[:, None]

    def note(layer: int, raw: Tensor) -> None:
        seen[layer] = layout.unpack(raw)[:, 0][batch, ends].float().cpu()

    return note
