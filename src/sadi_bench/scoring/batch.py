"""Score one batch: the prompts once, then group by group of cells what follows them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sadi_bench.models.families import Site
from sadi_bench.models.hooks import Edit, edited, recorded_blocks
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.layout import Layout, layout_of
from sadi_bench.models.logits import Successors, TokenScores, successors_of, token_scores
from sadi_bench.models.packing import Prefix, run_branches
from sadi_bench.models.shapes import Float
from sadi_bench.scoring.answers import (
    ChoiceRequest,
    ChoiceScores,
    NodeScores,
    answer_constants,
    scores_of,
)
from sadi_bench.scoring.prompts import bound_to, measured_of, run_prompts
from sadi_bench.steering.intervention import Intervention, Reach

PACKED_NODES = 1024
"""Most nodes of one sequence: each attends to all, mostly masked, so the waste grows squared."""


def score_batch(
    lm: LanguageModel,
    requests: Sequence[ChoiceRequest],
    intervention: Intervention,
    groups: list[list[int]],
) -> list[ChoiceScores]:
    """Score every answer of every request in every cell.

    `groups` are the passes behind the prefix: the cells of each, cell 0 in front. Cells in no
    group are the unsteered model.
    """
    prompts, answers = [r.prompt for r in requests], [r.answers for r in requests]
    whole = intervention.reach == Reach.all_tokens
    layout = layout_of(prompts, answers, packed=lm.packs, whole=whole)
    successors = successors_of(layout, answers)
    shared = fed_by_first_copy(lm, intervention, requests)
    if shared != Site.head:  # else attention runs for one copy, and nothing is masked
        groups = split_groups(groups, PACKED_NODES // layout.shape[1] - 1)
    prefix, readings = run_prompts(lm, prompts, intervention)
    bound = bound_to(readings, intervention)
    starts = [min((intervention.first_layer(c) for c in g[1:]), default=0) for g in groups]
    entries = _entries(lm, prefix, layout, set(starts) - {0})

    def run(group: list[int], start: int) -> TokenScores:
        guard = _Guard(layout, successors, len(group), start)
        with (
            edited(lm.network, lm.family, bound.site, _edit_of(bound, layout, group)),
            edited(lm.network, lm.family, Site.residual, guard),
        ):
            entry = {"start": start, "entry": entries.get(start), "first_copy_feeds": shared}
            hidden = run_branches(lm, prefix, layout, len(group), **entry)
        return guard.marked(token_scores(lm, hidden, successors))

    found = [run(group, start) for group, start in zip(groups, starts, strict=True)]
    nodes = _joined(found, groups, len(intervention.cells))
    measured = measured_of(readings, intervention, len(requests))
    constants = [answer_constants(lm, intervention, each) for each in answers]
    asked = zip(answers, successors.steps, constants, measured, strict=True)
    return [scores_of(own, steps, nodes, added, did) for own, steps, added, did in asked]


def _joined(found: Sequence[TokenScores], groups: list[list[int]], num_cells: int) -> NodeScores:
    """Put the passes' cells in order; those that no pass had are cell 0."""
    place = {cell: i for i, cell in reversed(list(enumerate(sum(groups, []))))}
    columns = [place.get(cell, 0) for cell in range(num_cells)]
    passes = zip(*(vars(scores).values() for scores in found), strict=True)
    joined = (torch.cat(parts, dim=1) for parts in passes)
    # All is on its way before the first `cpu`, the one place that waits for the device.
    return NodeScores(*(part.cpu().numpy()[:, columns] for part in list(joined)))


def split_groups(groups: list[list[int]], cells_a_pass: int) -> list[list[int]]:
    """Cut groups to at most `cells_a_pass` steered cells, cell 0 in front of each part."""
    parts = []
    for _, *cells in groups:
        size = max(1, cells_a_pass)
        parts += [[0, *cells[i : i + size]] for i in range(0, len(cells), size)] or [[0]]
    return parts


def fed_by_first_copy(
    lm: LanguageModel, intervention: Intervention, requests: Sequence[ChoiceRequest]
) -> Site | None:
    """Name the site if every one of its values is overwritten with the unsteered copy's.

    So it is where each steered position is, at every node: answers of one token have no other node
    than the last prompt token.
    """
    site = intervention.site
    if not intervention.overwrites or getattr(lm.family, site.value).producer is None:
        return None
    short = all(len(answer) == 1 for request in requests for answer in request.answers)
    return site if short or intervention.reach != Reach.last_prompt else None


class _Guard:
    """Keep a cell that overflows to itself, and mark it if an answer stands there.

    Masked attention multiplies what it must not see by 0, and 0 · inf is no number: one cell's
    overflow would spoil every cell of the packed sequence. So what leaves a block is finite.
    """

    def __init__(self, layout: Layout, successors: Successors, copies: int, start: int) -> None:
        self.layout, self.start = layout, start
        asked = (successors.tokens >= 0).any(dim=-1)
        # What an answer's node sees counts as well: all of the prompt, where the trees hold it.
        self.asked = (layout.sees & asked[:, :, None]).any(dim=1)[:, None]  # [batch 1 node]
        self.batch_of_rows = successors.nodes // layout.shape[1]
        self.broken = torch.zeros(layout.shape[0], copies, dtype=torch.bool)

    def __call__(self, layer: int, raw: Tensor) -> Tensor | None:
        if layer < self.start:
            return None
        values = self.layout.unpack(raw)
        finite = values.sum(dim=-1, dtype=torch.float32).isfinite()
        if raw.device.type == "cpu" and finite.all():
            return None  # elsewhere asking would wait for the device, block by block
        lost = ~finite & self.asked.to(raw.device, non_blocking=True)
        self.broken = self.broken.to(raw.device) | lost.any(dim=-1)
        return self.layout.pack(torch.where(finite[..., None], values, 0), raw)

    def marked(self, scores: TokenScores) -> TokenScores:
        """Put NaN where a cell overflowed."""
        broken = self.broken.to(scores.logprobs.device)
        broken = broken[self.batch_of_rows.to(broken.device)]
        logprobs = scores.logprobs.masked_fill(broken[..., None], torch.nan)
        return replace(scores, logprobs=logprobs)


def _edit_of(intervention: Intervention, layout: Layout, group: list[int]) -> Edit:
    """Bind an intervention to the positions of a layout: a function for `edited`."""
    nodes = layout.roots if intervention.reach == Reach.last_prompt else slice(None)
    cells = torch.tensor(group)

    def edit(layer: int, raw: Tensor) -> Tensor | None:
        values = layout.unpack(raw)
        copies = values.shape[1]
        old = values[:, :1, nodes] if intervention.overwrites else values[:, :, nodes]
        new = intervention.edit(layer, old, cells)
        if new is None:
            if copies == old.shape[1]:
                return None
            new = old.expand(-1, copies, -1, -1)
        if new.shape[2] < values.shape[2]:
            rest = values.clone()
            rest[:, :, nodes] = new
            new = rest
        return layout.pack(new, raw)

    return edit


def _entries(
    lm: LanguageModel, prefix: Prefix, layout: Layout, starts: set[int]
) -> dict[int, Float[Tensor, "batch node width"]]:
    """Run the trees once, unsteered, up to the highest start; keep what enters each start."""
    if not starts:
        return {}
    with recorded_blocks(lm.network, lm.family, starts) as seen:
        run_branches(lm, prefix, layout, 1, stop=max(starts))
    return {layer: layout.unpack(hidden)[:, 0] for layer, hidden in seen.items()}
