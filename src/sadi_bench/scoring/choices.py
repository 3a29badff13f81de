"""Score every answer of every prompt in every cell: log-probabilities and predicted tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from sadi_bench.batches.job import Arrays, Job, halved, job_key, times_halved
from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.scoring.answers import ChoiceRequest, ChoiceScores, answer_constants
from sadi_bench.scoring.batch import fed_by_first_copy, score_batch, split_groups
from sadi_bench.steering.artefact import content_digest
from sadi_bench.steering.intervention import Intervention, Reach

TOKEN_BUDGET = {"cpu": 3072, "cuda": 65536, "mps": 8192}
"""Tokens of a pass, prefix and all cells together; halved when memory runs out."""

MEASURED = "measured."


def score_choices(
    lm: LanguageModel,
    requests: Sequence[ChoiceRequest],
    intervention: Intervention,
    token_budget: int | None = None,
) -> list[ChoiceScores]:
    """Score all requests in all cells; results come in the order of the requests.

    Prompts of like length share a pass. Where memory runs out a batch is cut in two.
    """
    job = choice_job(lm, requests, intervention, token_budget)
    scores: dict[int, ChoiceScores] = {}
    for batch, arrays in zip(job.batches, lm.executor.results(job, lm), strict=True):
        found = _scores([requests[i].answers for i in batch], arrays)
        scores.update(zip(batch, found, strict=True))
    return [scores[i] for i in range(len(requests))]


def choice_job(
    lm: LanguageModel,
    requests: Sequence[ChoiceRequest],
    intervention: Intervention,
    token_budget: int | None = None,
) -> "ChoiceJob":
    """Plan the batches: requests of like length together, the longest first.

    Raises:
        SettingError: a prompt does not fit, or an answer has no constant.
    """
    for request in requests:
        fed = len(request.prompt) + max(map(len, request.answers)) - 1  # the last is predicted only
        lm.check_length(fed)
        answer_constants(lm, intervention, request.answers)  # refuses an answer that has none
    groups = cell_groups(intervention, lm.num_layers)
    one_prefix = lm.packs or fed_by_first_copy(lm, intervention, requests) == Site.head
    copies = max(map(len, groups))
    whole = intervention.reach == Reach.all_tokens
    lengths = [len(request.prompt) for request in requests]
    nodes = [_nodes(request, whole, lm.packs) for request in requests]
    budget = token_budget or TOKEN_BUDGET.get(lm.planned_for, 3072)
    left, batches = sorted(range(len(requests)), key=lambda i: -lengths[i]), []
    while left:
        found = _first_pass(left, lengths, nodes, (copies, 1 if one_prefix else copies), budget)
        batches.append(tuple(found))
        left = left[len(found) :]
    return ChoiceJob(tuple(batches), tuple(requests), intervention, tuple(map(tuple, groups)))


@dataclass(frozen=True)
class ChoiceJob(Job):
    """Score batches of requests, by their numbers; `groups` are the cells of a pass."""

    batches: Sequence[Sequence[int]]
    requests: Sequence[ChoiceRequest]
    intervention: Intervention
    groups: Sequence[Sequence[int]]
    unit: str = "doc"

    @property
    def name(self) -> str:
        """What the bar calls it."""
        return f"scoring {len(self.intervention.cells)} cells"

    def run(self, lm: LanguageModel, batch: Sequence[int], halvings: int) -> Arrays:
        """Score a batch in all cells; halved are its requests, then the cells of a pass."""
        rest = max(0, halvings - times_halved(len(batch)))
        cells_a_pass = -(-self._cells_a_pass // (1 << rest))
        passes = split_groups([list(group) for group in self.groups], cells_a_pass)
        pieces = [[self.requests[i] for i in piece] for piece in halved(batch, halvings)]
        return _arrays(
            list(chain(*(score_batch(lm, piece, self.intervention, passes) for piece in pieces)))
        )

    def most_halvings(self, batch: Sequence[int]) -> int:
        """Go down to one request, then to one steered cell a pass."""
        return times_halved(len(batch)) + times_halved(self._cells_a_pass)

    def key(self, lm: LanguageModel) -> str:
        """Hash the intervention, what is asked and the plan."""
        learnt = content_digest(self.intervention)
        asked = [(request.prompt, request.answers) for request in self.requests]
        return job_key(lm, self.name, learnt, asked, self.batches, self.groups)

    @property
    def _cells_a_pass(self) -> int:
        return max(map(len, self.groups)) - 1


def _arrays(scores: Sequence[ChoiceScores]) -> Arrays:
    """Stack a batch's scores: answers [answer cell], their tokens [step cell], [request cell]."""
    found = {
        "logprobs": np.concatenate([each.logprobs for each in scores]),
        "predicted": np.concatenate([steps for each in scores for steps in each.predicted]),
        "finite": np.stack([each.finite for each in scores]),
    }
    for name in scores[0].measured:
        found[MEASURED + name] = np.stack([each.measured[name] for each in scores])
    return found


def _scores(asked: Sequence[tuple[tuple[int, ...], ...]], arrays: Arrays) -> list[ChoiceScores]:
    """Take a batch's scores apart again, request by request."""
    measured = {name for name in arrays if name.startswith(MEASURED)}
    ends = np.cumsum([0, *(len(answers) for answers in asked)])
    steps = iter(pairwise(np.cumsum([0, *(len(a) for answers in asked for a in answers)])))
    return [
        ChoiceScores(
            answers,
            arrays["logprobs"][first:last],
            tuple(arrays["predicted"][slice(*next(steps))] for _ in answers),
            arrays["finite"][i],
            {name.removeprefix(MEASURED): arrays[name][i] for name in sorted(measured)},
        )
        for i, (answers, (first, last)) in enumerate(zip(asked, pairwise(ends), strict=True))
    ]


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
