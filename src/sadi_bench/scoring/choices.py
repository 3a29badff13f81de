"""Score every answer of every prompt in every cell: log-probabilities and predicted tokens."""

from collections.abc import Sequence

import torch
from tqdm import tqdm

from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.memory import fitting_passes
from sadi_bench.scoring.answers import ChoiceRequest, ChoiceScores, answer_constants
from sadi_bench.scoring.batch import fed_by_first_copy, score_batch, split_groups
from sadi_bench.steering.intervention import Intervention, Reach

TOKEN_BUDGET = {"cpu": 3072, "cuda": 65536, "mps": 8192}
"""Tokens of a pass, prefix and all cells together; halved when memory runs out."""


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
        fed = len(request.prompt) + max(map(len, request.answers)) - 1  # the last is predicted only
        lm.check_length(fed)
        answer_constants(lm, intervention, request.answers)  # refuses an answer that has none
    plan = _Plan(lm, requests, intervention, token_budget)

    def run(batch: list[int]) -> list[ChoiceScores]:
        return score_batch(lm, [requests[i] for i in batch], intervention, plan.passes())

    scores: dict[int, ChoiceScores] = {}
    bar = tqdm(total=len(requests), desc=f"scoring {len(intervention.cells)} cells", disable=None)
    with torch.inference_mode(), bar:
        for batch, found in fitting_passes(lm, plan.take, run, plan.shrink):
            scores.update(zip(batch, found, strict=True))
            plan.left = plan.left[len(batch) :]
            bar.update(len(batch))
    return [scores[i] for i in range(len(requests))]


class _Plan:
    """Say which requests are scored next, longest first, and in how many passes behind them."""

    def __init__(
        self,
        lm: LanguageModel,
        requests: Sequence[ChoiceRequest],
        intervention: Intervention,
        token_budget: int | None,
    ) -> None:
        self.one_prefix = lm.packs or fed_by_first_copy(lm, intervention, requests) == Site.head
        self.groups = cell_groups(intervention, lm.num_layers)
        self.cells_a_pass = max(map(len, self.groups)) - 1
        self.budget = token_budget or TOKEN_BUDGET.get(lm.device.type, 3072)
        whole = intervention.reach == Reach.all_tokens
        self.lengths = [len(request.prompt) for request in requests]
        self.nodes = [_nodes(request, whole, lm.packs) for request in requests]
        self.left = sorted(range(len(requests)), key=lambda i: -self.lengths[i])

    def take(self) -> list[int]:
        """Return the requests of the next batch; none where all are scored."""
        copies = 1 + self.cells_a_pass
        prefixes = 1 if self.one_prefix else copies
        return _first_pass(self.left, self.lengths, self.nodes, (copies, prefixes), self.budget)

    def passes(self) -> list[list[int]]:
        """Return the cells of every pass behind a batch."""
        return split_groups(self.groups, self.cells_a_pass)

    def shrink(self, batch: list[int]) -> bool:
        """Make the next batch smaller, then its passes; False where neither can be."""
        if len(batch) > 1:
            self.budget //= 2
            return True
        smallest = self.cells_a_pass <= 1
        self.cells_a_pass = (self.cells_a_pass + 1) // 2
        return not smallest


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


def _nodes(request: ChoiceRequest, whole: bool, packed: bool) -> int:
    """Count what one copy runs behind the prefix; the whole prompt where trees hold it."""
    nodes = 1 + sum(len(answer) - 1 for answer in request.answers)
    if not whole:
        return nodes
    rows = 1 if packed else len({answer[:-1] for answer in request.answers})
    return nodes + rows * (len(request.prompt) - 1)


def _first_pass(
    left: list[int],
    lengths: Sequence[int],
    nodes: Sequence[int],
    copies: tuple[int, int],
    budget: int,
) -> list[int]:
    """Take requests from the front, at least one, as long as their tokens keep to the budget.

    `copies` of the branches, and of the prefix: rows repeat its keys, layer by layer, which is
    about an eighth of what a token costs.
    """
    prefixes = max(1, copies[1] // 8)
    longest = widest = 0
    for count, i in enumerate(left):
        longest = max(longest, lengths[i])
        widest = max(widest, nodes[i])
        if count and (count + 1) * (prefixes * longest + copies[0] * widest) > budget:
            return left[:count]
    return left
