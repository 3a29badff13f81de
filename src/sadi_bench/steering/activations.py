"""Last-token activations of contrastive pairs: two branches behind one prefix."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sadi_bench.batches.job import Arrays, Job, halved, job_key, times_halved
from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.models.hooks import Edit, edited
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.layout import Layout, layout_of
from sadi_bench.models.packing import run_branches, run_prefix
from sadi_bench.models.shapes import Float
from sadi_bench.steering.cache import cache_key, keep_tensors, kept_tensors

TOKENS_PER_PASS = 4096
MOST_KEPT = 1 << 28
"""Bytes of all pairs' activations, one site's, that the cache takes."""


@dataclass(frozen=True)
class EncodedContrast:
    """Hold a contrastive pair as tokens; both answers follow the same prompt."""

    prompt: tuple[int, ...]
    positive: tuple[int, ...]
    negative: tuple[int, ...]
    doc_id: int


Reader = Callable[[LanguageModel, list[EncodedContrast]], dict[str, Tensor]]
"""Reads something of a batch of pairs, by name; the first axis is the pairs."""


def pair_activations(
    lm: LanguageModel, pairs: Sequence[EncodedContrast], *sites: Site
) -> Iterator[tuple[list[int], dict[Site, Float[Tensor, "pair side layer width"]]]]:
    """Yield, pass by pass, the pairs' numbers and their activations at each site.

    Side 0 is the positive answer, side 1 the negative; read at each answer's last token, float32.
    Raises SettingError where they overflow.
    """
    for numbers, found in passes(lm, pairs, partial(_read, sites=sites)):
        yield numbers, {site: found[site.value] for site in sites}


def passes(
    lm: LanguageModel, pairs: Sequence[EncodedContrast], read: Reader
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Read pairs of like length together; yield their numbers and the tensors that `read` gives.

    `read` is a function of a module, or a `partial` of one with plain values, so that workers can
    have it and a shard can name it.
    """
    job = pair_job(pairs, read)
    for batch, arrays in zip(job.batches, lm.executor.results(job, lm), strict=True):
        yield list(batch), {name: torch.from_numpy(array) for name, array in arrays.items()}


def pair_job(pairs: Sequence[EncodedContrast], read: Reader) -> "PairJob":
    """Plan the batches: pairs of like length together, the longest first."""
    return PairJob(_plan(pairs), tuple(pairs), read)


def _plan(pairs: Sequence[EncodedContrast]) -> tuple[tuple[int, ...], ...]:
    """Put pairs of like length together, the longest first, up to `TOKENS_PER_PASS`."""
    left, batches = sorted(range(len(pairs)), key=lambda i: -len(pairs[i].prompt)), []
    while left:
        count = max(1, TOKENS_PER_PASS // (len(pairs[left[0]].prompt) + 8))
        batches.append(tuple(left[:count]))
        left = left[count:]
    return tuple(batches)


@dataclass(frozen=True)
class PairJob(Job):
    """Read batches of pairs, by their numbers."""

    batches: Sequence[Sequence[int]]
    pairs: Sequence[EncodedContrast]
    read: Reader
    name: str = "reading pairs"
    unit: str = "pair"

    def run(self, lm: LanguageModel, batch: Sequence[int], halvings: int) -> Arrays:
        """Read a batch, in halves where memory is short."""
        pieces = [[self.pairs[i] for i in piece] for piece in halved(batch, halvings)]
        found = [self.read(lm, piece) for piece in pieces]
        return {name: torch.cat([each[name] for each in found]).numpy() for name in found[0]}

    def most_halvings(self, batch: Sequence[int]) -> int:
        """Go down to one pair."""
        return times_halved(len(batch))

    def key(self, lm: LanguageModel) -> str:
        """Hash the pairs, the plan and what is read."""
        read = self.read if isinstance(self.read, partial) else partial(self.read)
        reader = f"{read.func.__module__}.{read.func.__qualname__}", read.args, read.keywords
        return job_key(lm, *reader, _tokens(self.pairs), self.batches)


def is_kept(lm: LanguageModel, job: PairJob) -> bool:
    """Say whether the cache holds what a job reads, so that it will not be run."""
    sites: tuple[Site, ...] = ()
    if isinstance(job.read, partial) and job.read.func is _read:
        sites = job.read.keywords["sites"]
    elif job.read is not _read_differences:
        return False
    key = cache_key(lm, *(site.value for site in sites), _tokens(job.pairs))
    return kept_tensors(key) is not None


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
    numbers, found = zip(*passes(lm, pairs, partial(_read_prompts, site=site)), strict=True)
    values = torch.cat([each[site.value] for each in found])
    return values[torch.tensor(sum(numbers, [])).argsort()]


def _read_prompts(
    lm: LanguageModel, pairs: list[EncodedContrast], site: Site
) -> dict[str, Float[Tensor, "pair layer width"]]:
    prompts = [pair.prompt for pair in pairs]
    ends = torch.tensor([len(prompt) - 1 for prompt in prompts])
    seen: dict[int, Tensor] = {}

    def note(layer: int, raw: Tensor) -> None:
        values = raw.reshape(len(ends), -1, raw.shape[-1])
        seen[layer] = values[torch.arange(len(ends)), ends].float().cpu()

    with edited(lm.network, lm.family, site, note):
        run_prefix(lm, prompts, with_last=True)
    values = torch.stack([seen[layer] for layer in range(lm.num_layers)], dim=1)
    return {site.value: without_overflow(lm, values)}


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
    for _, found in passes(lm, pairs, _read_differences):
        for site, sums in found.items():
            for summed in sums:  # one a piece of the batch
                total[site] = total[site] + summed
    return {site: (summed / len(pairs)).float() for site, summed in total.items()}


def _read_differences(
    lm: LanguageModel, pairs: list[EncodedContrast]
) -> dict[str, Float[Tensor, "1 layer width"]]:
    """Sum positive less negative over the pairs: a shard of it is small, whatever the batch."""
    return {
        site: (found[:, 0].double() - found[:, 1].double()).sum(dim=0, keepdim=True)
        for site, found in _read(lm, pairs, tuple(Site)).items()
    }


def _read(
    lm: LanguageModel, pairs: list[EncodedContrast], sites: tuple[Site, ...]
) -> dict[str, Float[Tensor, "pair side layer width"]]:
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
        site.value: without_overflow(
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
