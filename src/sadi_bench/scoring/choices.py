"""Score every answer of every prompt in every cell: log-probabilities and the greedy flag."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sadi_bench.errors import SettingError
from sadi_bench.models.hooks import Edit, edited, recorded_blocks
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.packing import Layout, Prefix, layout_of, run_branches, run_prefix
from sadi_bench.models.shapes import Bool, Float, Int
from sadi_bench.scoring.logits import successors_of, token_scores
from sadi_bench.steering.intervention import Intervention, Reach

TOKEN_BUDGET = {"cpu": 6144, "cuda": 65536, "mps": 8192}
"""Tokens of a pass, prefix and all cells together; halved when memory runs out."""


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
    budget = token_budget or TOKEN_BUDGET.get(lm.device.type, 6144)
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i].prompt))
    queue = list(_batches(requests, order, max(len(g) for g in groups), budget))
    scores: dict[int, ChoiceScores] = {}
    with torch.inference_mode(), tqdm(
        total=len(requests), desc=f"scoring {len(intervention.cells)} cells", unit="prompt",
        disable=None,
    ) as bar:  # fmt: skip
        while queue:
            batch = queue.pop(0)
            try:
                found = _score_batch(lm, [requests[i] for i in batch], intervention, groups)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                if len(batch) > 1:
                    half = len(batch) // 2
                    queue[:0] = [batch[:half], batch[half:]]
                else:
                    groups = _halved(groups, error)
                    queue.insert(0, batch)
                continue
            scores.update(zip(batch, found, strict=True))
            bar.update(len(batch))
    return [scores[i] for i in range(len(requests))]


def cell_groups(intervention: Intervention, num_layers: int) -> list[list[int]]:
    """Put cells that start to differ at about the same layer into one pass.

    A pass runs only the layers from its first edited one on; each carries cell 0 in front, so
    every cell stands beside an unsteered copy of itself. Two groups merge where the layers saved
    would not pay for the second pass (its copy of cell 0 and its reading of the weights).
    """
    starts: dict[int, list[int]] = {}
    for cell in intervention.cells[1:]:
        starts.setdefault(intervention.first_layer(cell.index), []).append(cell.index)
    groups: list[tuple[int, list[int]]] = []
    for start, cells in sorted(starts.items()):
        if groups and len(cells) * (start - groups[-1][0]) < 4 * (num_layers - start) + 1:
            groups[-1][1].extend(cells)
        else:
            groups.append((start, cells))
    return [[0, *cells] for _, cells in groups] or [[0]]


def _batches(
    requests: Sequence[ChoiceRequest], order: list[int], copies: int, budget: int
) -> Iterator[list[int]]:
    """Cut the length-sorted requests into passes of at most `budget` tokens (at least one each)."""
    batch: list[int] = []
    longest = widest = 0
    for i in order:
        nodes = 1 + sum(len(a) - 1 for a in requests[i].answers)
        longest, widest = max(longest, len(requests[i].prompt)), max(widest, nodes)
        if batch and (len(batch) + 1) * (longest + copies * widest) > budget:
            yield batch
            batch, longest, widest = [], len(requests[i].prompt), nodes
        batch.append(i)
    if batch:
        yield batch


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _halved(groups: list[list[int]], error: RuntimeError) -> list[list[int]]:
    """Cut every pass's cells in two, cell 0 in front of each."""
    if max(len(g) for g in groups) <= 2:
        raise SettingError(
            f"out of memory with one prompt and one cell: {str(error)[:120]}; "
            "choose a smaller model, model.dtype=bfloat16 or a larger machine."
        ) from error
    halves = []
    for _, *cells in groups:
        middle = (len(cells) + 1) // 2
        halves += [[0, *part] for part in (cells[:middle], cells[middle:]) if part]
    return halves


def _score_batch(
    lm: LanguageModel,
    requests: list[ChoiceRequest],
    intervention: Intervention,
    groups: list[list[int]],
) -> list[ChoiceScores]:
    prompts = [r.prompt for r in requests]
    layout = layout_of(prompts, [r.answers for r in requests], packed=lm.packs)
    successors = successors_of(layout, [r.answers for r in requests])
    prefix = run_prefix(lm, prompts)
    last = lm.num_layers - 1
    starts = [min((intervention.first_layer(c) for c in g[1:]), default=last) for g in groups]
    starts = [min(start, last) for start in starts]
    entries = _entries(lm, prefix, layout, set(starts) - {0})
    shape = (*successors.tokens.shape, len(intervention.cells))
    logprobs, greedy = np.empty(shape, np.float32), np.empty(shape, bool)
    for group, start in reversed(list(zip(groups, starts, strict=True))):
        cells = torch.tensor(group, device=lm.device)
        edit = _edit_of(intervention, layout, cells)
        with edited(lm.network, lm.family, intervention.site, edit):
            entry = entries.get(start)
            hidden = run_branches(lm, prefix, layout, len(group), start=start, entry=entry)
        logprobs[..., group], greedy[..., group] = token_scores(lm, hidden, successors.tokens)
    return [_scores_of(steps, logprobs[i], greedy[i]) for i, steps in enumerate(successors.steps)]


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
