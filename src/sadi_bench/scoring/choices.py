"""Score every answer of every prompt in every cell: log-probabilities and the greedy flag."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sadi_bench.models.families import Site
from sadi_bench.models.hooks import Edit, edited, recorded_blocks
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.memory import memory_error, out_of_memory
from sadi_bench.models.packing import (
    Layout,
    Prefix,
    layout_of,
    run_branches,
    run_prefix,
)
from sadi_bench.models.shapes import Bool, Float, Int
from sadi_bench.scoring.logits import successors_of, token_scores
from sadi_bench.steering.intervention import Intervention, Reach

TOKEN_BUDGET = {"cpu": 6144, "cuda": 65536, "mps": 8192}
"""Tokens of a pass, prefix and all cells together; halved when memory runs out."""

PACKED_NODES = 1024
"""Most nodes of one sequence: each attends to all, mostly masked, so the waste grows squared."""


@dataclass(frozen=True)
class ChoiceRequest:
    """Hold one prompt and its answers, as tokens."""

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ChoiceScores:
    """Hold the scores of one request.

    logprobs: float32, summed over the answer's tokens, natural logarithm.
    greedy: every answer token is the arg-max of the whole vocabulary.
    A cell whose activations left the number range has logprob -inf, greedy False, finite False.
    """

    logprobs: Float[np.ndarray, "choice cell"]
    greedy: Bool[np.ndarray, "choice cell"]
    finite: Bool[np.ndarray, " cell"]


def score_choices(
    lm: LanguageModel,
    requests: Sequence[ChoiceRequest],
    intervention: Intervention,
    token_budget: int | None = None,
) -> list[ChoiceScores]:
    """Score all requests in all cells; results come in the order of the requests.

    Prompts of like length share a pass. Where memory runs out a pass is cut in two and the budget
    halved; nothing scored before is lost.
    """
    for request in requests:
        lm.check_length(len(request.prompt) + max(map(len, request.answers)))
    groups = cell_groups(intervention, lm.num_layers)
    cells_a_pass = max(map(len, groups)) - 1
    budget = token_budget or TOKEN_BUDGET.get(lm.device.type, 6144)
    left = sorted(range(len(requests)), key=lambda i: -len(requests[i].prompt))
    scores: dict[int, ChoiceScores] = {}
    bar = tqdm(total=len(left), desc=f"scoring {len(intervention.cells)} cells", disable=None)
    with torch.inference_mode(), bar:
        while left:
            batch = _first_pass(requests, left, 1 + cells_a_pass, budget, lm.packs)
            passes = split_groups(groups, cells_a_pass)
            try:
                found = _score_batch(lm, [requests[i] for i in batch], intervention, passes)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if len(batch) == 1 and cells_a_pass <= 1:
                    raise memory_error(lm, error) from error
                if len(batch) > 1:
                    budget //= 2
                else:
                    cells_a_pass = (cells_a_pass + 1) // 2
                continue
            scores.update(zip(batch, found, strict=True))
            left = left[len(batch) :]
            bar.update(len(batch))
    return [scores[i] for i in range(len(requests))]


def cell_groups(intervention: Intervention, num_layers: int) -> list[list[int]]:
    """Put cells that start to differ at about the same layer into one pass.

    A pass runs only the layers from its first edited one on; each carries cell 0 in front, so
    every cell stands beside an unsteered copy of itself. Two groups merge where the layers saved
    would not pay for the second pass (its copy of cell 0 and its reading of the weights). Cells
    that edit no layer are in no group: they are cell 0.
    """
    starts: dict[int, list[int]] = {}
    for cell in intervention.cells[1:]:
        start = intervention.first_layer(cell.index)
        if start < num_layers:
            starts.setdefault(start, []).append(cell.index)
    groups: list[tuple[int, list[int]]] = []
    for start, cells in sorted(starts.items()):
        if groups and len(cells) * (start - groups[-1][0]) < 4 * (num_layers - start) + 1:
            groups[-1][1].extend(cells)
        else:
            groups.append((start, cells))
    return [[0, *cells] for _, cells in groups] or [[0]]


def split_groups(groups: list[list[int]], cells_a_pass: int) -> list[list[int]]:
    """Cut groups to at most `cells_a_pass` steered cells, cell 0 in front of each part."""
    parts = []
    for _, *cells in groups:
        size = max(1, cells_a_pass)
        parts += [[0, *cells[i : i + size]] for i in range(0, len(cells), size)] or [[0]]
    return parts


def _first_pass(
    requests: Sequence[ChoiceRequest], left: list[int], copies: int, budget: int, packed: bool
) -> list[int]:
    """Take requests from the front, at least one, as long as their tokens keep to the budget.

    Rows repeat the prefix's keys, layer by layer: about an eighth of what a token costs.
    """
    prefixes = 1 if packed else max(1, copies // 8)
    longest = widest = 0
    for count, i in enumerate(left):
        longest = max(longest, len(requests[i].prompt))
        widest = max(widest, 1 + sum(len(answer) - 1 for answer in requests[i].answers))
        if count and (count + 1) * (prefixes * longest + copies * widest) > budget:
            return left[:count]
    return left


def _score_batch(
    lm: LanguageModel,
    requests: list[ChoiceRequest],
    intervention: Intervention,
    groups: list[list[int]],
) -> list[ChoiceScores]:
    prompts = [r.prompt for r in requests]
    layout = layout_of(prompts, [r.answers for r in requests], packed=lm.packs)
    successors = successors_of(layout, [r.answers for r in requests])
    groups = split_groups(groups, PACKED_NODES // layout.shape[1] - 1)
    prefix = run_prefix(lm, prompts)
    starts = [min((intervention.first_layer(c) for c in g[1:]), default=0) for g in groups]
    entries = _entries(lm, prefix, layout, set(starts) - {0})
    asked = (successors.tokens >= 0).any(dim=-1)
    num_cells = len(intervention.cells)
    shape = (*successors.tokens.shape, num_cells)
    logprobs, greedy = np.empty(shape, np.float32), np.empty(shape, bool)
    for group, start in reversed(list(zip(groups, starts, strict=True))):
        cells = torch.tensor(group, device=lm.device)
        edit = _edit_of(intervention, layout, cells)
        broken = torch.zeros(len(requests), len(group), dtype=torch.bool, device=lm.device)
        with (
            edited(lm.network, lm.family, intervention.site, edit),
            edited(lm.network, lm.family, Site.residual, _guard_of(layout, asked, broken)),
        ):
            entry = entries.get(start)
            hidden = run_branches(lm, prefix, layout, len(group), start=start, entry=entry)
        found, greedy[..., group] = token_scores(lm, hidden, successors.tokens)
        logprobs[..., group] = np.where(broken.cpu().numpy()[:, None, None], np.nan, found)
    idle = sorted(set(range(1, num_cells)).difference(*groups))
    logprobs[..., idle], greedy[..., idle] = logprobs[..., :1], greedy[..., :1]
    return [_scores_of(steps, logprobs[i], greedy[i]) for i, steps in enumerate(successors.steps)]


def _guard_of(
    layout: Layout, asked: Bool[Tensor, "batch node"], broken: Bool[Tensor, "batch cell"]
) -> Edit:
    """Keep a cell that leaves the number range to itself, and mark it if an answer stands there.

    Masked attention multiplies what it must not see by 0, and 0 · inf is no number: one cell's
    overflow would spoil every cell of the packed sequence. So what leaves a block is finite.
    """

    def guard(_layer: int, raw: Tensor) -> Tensor | None:
        values = layout.unpack(raw, broken.shape[1])
        finite = values.sum(dim=-1, dtype=torch.float32).isfinite()
        lost = ~finite & asked[:, None].to(raw.device)
        broken.logical_or_(lost.any(dim=-1).to(broken.device))
        if raw.device.type == "cpu" and finite.all():
            return None  # elsewhere asking would wait for the device, block by block
        return torch.where(finite[..., None], values, 0).reshape(raw.shape)

    return guard


def _scores_of(
    steps: list[list[tuple[int, int]]], logprobs: np.ndarray, greedy: np.ndarray
) -> ChoiceScores:
    """Add up the token scores [node successor cell] along every answer."""
    sums = np.stack([sum(logprobs[node, slot] for node, slot in answer) for answer in steps])
    flags = np.stack([np.all([greedy[n, s] for n, s in answer], axis=0) for answer in steps])
    finite = np.isfinite(sums).all(axis=0)
    return ChoiceScores(np.where(finite, sums, -np.inf), flags & finite, finite)


def _edit_of(intervention: Intervention, layout: Layout, cells: Int[Tensor, " cell"]) -> Edit:
    """Bind an intervention to the positions of a layout: a function for `edited`."""
    nodes = layout.roots if intervention.reach == Reach.last_prompt else slice(None)

    def edit(layer: int, raw: Tensor) -> Tensor | None:
        values = layout.unpack(raw, len(cells))
        steered = values[:, :, nodes]
        new = intervention.edit(layer, steered, cells.to(raw.device), steered[:, :1])
        if new is None:
            return None
        if steered.shape == values.shape:
            return new.reshape(raw.shape)
        values = values.clone()
        values[:, :, nodes] = new
        return values.reshape(raw.shape)

    return edit


def _entries(
    lm: LanguageModel, prefix: Prefix, layout: Layout, starts: set[int]
) -> dict[int, Float[Tensor, "batch node width"]]:
    """Run the trees once, unsteered, up to the highest start; keep what enters each start."""
    if not starts:
        return {}
    with recorded_blocks(lm.network, lm.family, starts) as seen:
        run_branches(lm, prefix, layout, 1, stop=max(starts))
    return {layer: layout.unpack(hidden, 1)[:, 0] for layer, hidden in seen.items()}
