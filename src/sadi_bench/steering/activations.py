"""Last-token activations of contrastive pairs: two branches behind one prefix."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.models.hooks import Edit, edited
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.layout import Layout, layout_of
from sadi_bench.models.memory import fitting_passes
from sadi_bench.models.packing import run_branches, run_prefix
from sadi_bench.models.shapes import Float
from sadi_bench.steering.cache import cache_key, keep_tensors, kept_tensors

TOKENS_PER_PASS = 4096
MOST_KEPT = 1 << 28
"""Bytes of all pairs' activations, one site's, that the cache takes."""


Reading = TypeVar("Reading")


@dataclass(frozen=True)
class EncodedContrast:
    """Hold a contrastive pair as tokens; both answers follow the same prompt."""

    prompt: tuple[int, ...]
    positive: tuple[int, ...]
    negative: tuple[int, ...]
    doc_id: int


def pair_activations(
    lm: LanguageModel, pairs: Sequence[EncodedContrast], *sites: Site
) -> Iterator[tuple[list[int], dict[Site, Float[Tensor, "pair side layer width"]]]]:
    """Yield, pass by pass, the pairs' numbers and their activations at each site.

    Side 0 is the positive answer, side 1 the negative; read at each answer's last token, float32.
    Raises SettingError where they overflow.
    """
    return passes(lm, pairs, lambda batch: _read(lm, batch, sites))


def passes(
    lm: LanguageModel,
    pairs: Sequence[EncodedContrast],
    read: Callable[[list[EncodedContrast]], Reading],
) -> Iterator[tuple[list[int], Reading]]:
    """Read pairs of like length together, fewer where memory runs out."""
    left = sorted(range(len(pairs)), key=lambda i: -len(pairs[i].prompt))
    budget = TOKENS_PER_PASS

    def take() -> list[int]:
        return left[: max(1, budget // (len(pairs[left[0]].prompt) + 8))] if left else []

    def run(batch: list[int]) -> Reading:
        return read([pairs[i] for i in batch])

    def shrink(batch: list[int]) -> bool:
        nonlocal budget
        budget //= 2
        return len(batch) > 1

    bar = tqdm(total=len(pairs), desc="reading pairs", unit="pair", disable=None)
    with torch.inference_mode(), bar:
        for batch, found in fitting_passes(lm, take, run, shrink):
            left = left[len(batch) :]
            yield batch, found
            bar.update(len(batch))


def all_activations(
    lm: LanguageModel, pairs: Sequence[EncodedContrast], site: Site
) -> Float[Tensor, "pair side layer width"]:
    """Hold the activations of all pairs at once, in their order, for methods that fit probes.

    Kept in the cache up to `MOST_KEPT` bytes.
    """
    key = cache_key(lm, site.value, _tokens(pairs))
    if (kept := kept_tensors(key)) is not None:
        return kept[site.value]
    numbers, found = zip(*pair_activations(lm, pairs, site), strict=True)
    order = torch.tensor(sum(numbers, [])).argsort()
    activations = torch.cat([each[site] for each in found])[order]
    if activations.nbytes <= MOST_KEPT:
        keep_tensors(key, {site.value: activations})
    return activations


def prompt_activations(
    lm: LanguageModel, pairs: Sequence[EncodedContrast], site: Site
) -> Float[Tensor, "pair layer width"]:
    """Read the site at the last token of every pair's prompt, before any answer; float32.

    Raises SettingError where they overflow.
    """

    def read(batch: list[EncodedContrast]) -> Float[Tensor, "pair layer width"]:
        prompts = [pair.prompt for pair in batch]
        ends = torch.tensor([len(prompt) - 1 for prompt in prompts])
        seen: dict[int, Tensor] = {}

        def note(layer: int, raw: Tensor) -> None:
            values = raw.reshape(len(ends), -1, raw.shape[-1])
            seen[layer] = values[torch.arange(len(ends)), ends].float().cpu()

        with edited(lm.network, lm.family, site, note):
            run_prefix(lm, prompts, with_last=True)
        values = torch.stack([seen[layer] for layer in range(lm.num_layers)], dim=1)
        return without_overflow(lm, values)

    numbers, found = zip(*passes(lm, pairs, read), strict=True)
    return torch.cat(found)[torch.tensor(sum(numbers, [])).argsort()]


def mean_difference(
    lm: LanguageModel, pairs: Sequence[EncodedContrast], site: Site
) -> Float[Tensor, "layer width"]:
    """Average positive less negative activations over the pairs, in float32.

    arXiv 2410.12299, equations 1 and 2. One reading of the pairs serves all sites, and is kept in
    the cache for the next method.
    """
    key = cache_key(lm, _tokens(pairs))
    if (kept := kept_tensors(key)) is None:
        kept = _mean_differences(lm, pairs)
        keep_tensors(key, kept)
    return kept[site.value]


def _tokens(pairs: Sequence[EncodedContrast]) -> list[tuple[tuple[int, ...], ...]]:
    return [(pair.prompt, pair.positive, pair.negative) for pair in pairs]


def _mean_differences(
    lm: LanguageModel, pairs: Sequence[EncodedContrast]
) -> dict[str, Float[Tensor, "layer width"]]:
    """Sum on the way, in float64: memory does not grow with the number of pairs."""
    total = {site.value: torch.zeros((), dtype=torch.float64) for site in Site}
    for _, found in pair_activations(lm, pairs, *Site):
        for site, activations in found.items():
            difference = activations[:, 0].double() - activations[:, 1].double()
            total[site.value] = total[site.value] + difference.sum(dim=0)
    return {site: (summed / len(pairs)).float() for site, summed in total.items()}


def _read(
    lm: LanguageModel, pairs: list[EncodedContrast], sites: tuple[Site, ...]
) -> dict[Site, Float[Tensor, "pair side layer width"]]:
    layout = layout_of(
        [p.prompt for p in pairs],
        [(p.positive, p.negative) for p in pairs],
        packed=lm.packs,
        keep_last=True,
    )
    ends = torch.tensor([[path[-1] for path in paths] for paths in layout.paths])
    seen: dict[Site, dict[int, Tensor]] = {site: {} for site in sites}
    prefix = run_prefix(lm, [p.prompt for p in pairs])
    with ExitStack() as stack:
        for site in sites:
            note = _note_into(seen[site], layout, ends)
            stack.enter_context(edited(lm.network, lm.family, site, note))
        run_branches(lm, prefix, layout, 1)
    layers = range(lm.num_layers)
    return {
        site: without_overflow(
            lm, torch.stack([found[layer] for layer in layers], dim=2).float().cpu()
        )
        for site, found in seen.items()
    }


def without_overflow(
    lm: LanguageModel, activations: Float[Tensor, "*any"]
) -> Float[Tensor, "*any"]:
    """Refuse NaN and infinity: NaN would be ranked first, learnt from and kept in the cache."""
    if activations.isfinite().all():
        return activations
    remedy = "another model" if lm.dtype == torch.float32 else "model.dtype=float32"
    raise SettingError(
        f"model.dtype={str(lm.dtype).removeprefix('torch.')}: activations of {lm.name} overflow, "
        f"and nothing can be learnt from them; choose {remedy}."
    )


def _note_into(seen: dict[int, Tensor], layout: Layout, ends: Tensor) -> Edit:
    """Make an edit that notes the values at the branches' ends and changes nothing."""
    batch = torch.arange(len(ends))[:, None]

    def note(layer: int, raw: Tensor) -> None:
        values = layout.unpack(raw)[:, 0]
        seen[layer] = values[batch.to(raw.device), ends.to(raw.device)].to(torch.float32)

    return note
