"""What one batch of a job costs: the passes that the engine will make of it, counted.

choices   the prompts but their last tokens; the trees up to the last start; copies of the trees
texts     the prompts but their last tokens; a token a row, step by step
pairs     the prompts but their last tokens; both answers
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sadi_bench.batches.job import Job
from sadi_bench.models.families import Site
from sadi_bench.models.layout import Tree, trees_of
from sadi_bench.models.logits import LOGITS_AT_ONCE
from sadi_bench.planning.network_size import NetworkSize
from sadi_bench.scoring.batch import PACKED_NODES, fed_by_first_copy, split_groups
from sadi_bench.scoring.choices import ChoiceJob
from sadi_bench.scoring.generation import Batch, TextJob
from sadi_bench.scoring.writing import stand_side_by_side
from sadi_bench.steering.activations import PairJob
from sadi_bench.steering.intervention import Intervention, Reach, ReadsPrompts


@dataclass(frozen=True)
class Cost:
    """Count forward passes, the blocks they run, tokens that leave the last block, and FLOPs.

    A token of padding counts: it is run. held: bytes beside the weights, at the widest.
    """

    passes: int = 0
    blocks: int = 0
    tokens: int = 0
    flops: int = 0
    held: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.passes + other.passes,
            self.blocks + other.blocks,
            self.tokens + other.tokens,
            self.flops + other.flops,
            max(self.held, other.held),
        )

    def times(self, factor: float) -> "Cost":
        """Return so much of it; what is held at once stays."""
        counts = (self.passes, self.blocks, self.tokens, self.flops)
        return Cost(*(round(factor * count) for count in counts), held=self.held)


NOTHING = Cost()


@dataclass(frozen=True)
class Pass:
    """Describe one forward pass: so many tokens, each of which meets `keys` keys in a block.

    prefix: tokens whose keys and values are held meanwhile. asked: rows that get logits.
    copies: 1, or how many tokens share one in what is `idle` (weights of a block).
    """

    tokens: int
    keys: int
    prefix: int = 0
    asked: int = 0
    layers: int | None = None
    copies: int = 1
    idle: int = 0
    attends_once: bool = False

    def cost(self, size: NetworkSize) -> Cost:
        """Count 2 FLOPs a weight and token, and attention's two products."""
        layers = size.layers if self.layers is None else self.layers
        first = self.tokens // self.copies
        matrices = 2 * (size.block - self.idle) * self.tokens + 2 * self.idle * first
        queries = first if self.attends_once else self.tokens
        block = matrices + 4 * size.attended * queries * self.keys
        head = 2 * size.output * self.asked
        return Cost(1, layers, self.tokens, layers * block + head, self._held(size, queries))

    def _held(self, size: NetworkSize, queries: int) -> int:
        """Add up keys and values, a block's inside, the mask, and logits in float32, twice."""
        kept = size.kept * (self.prefix + self.tokens)
        most = LOGITS_AT_ONCE.get(size.lm.planned_for, LOGITS_AT_ONCE["cpu"])
        logits = min(self.asked * size.vocab, most)
        inside = size.widest * self.tokens + queries * self.keys
        return (kept + inside) * size.number_bytes + 8 * logits


def batch_cost(job: Job, size: NetworkSize, batch: Sequence) -> Cost:
    """Count what a batch of a job costs."""
    return COSTS[type(job)](job, size, batch)


def told(job: PairJob) -> Mapping[str, Any]:
    """Return what a job's reader is told: `sites`, one `site` of prompts, `answers`, or nothing."""
    return job.read.keywords if isinstance(job.read, partial) else {}


def _pairs(job: PairJob, size: NetworkSize, batch: Sequence) -> Cost:
    pairs, asks = [job.pairs[i] for i in batch], told(job)
    prompts = [pair.prompt for pair in pairs]
    longest = _longest(prompts)
    if "site" in asks:
        return _prefix_cost(size, len(pairs), longest + 1)
    scored = "answers" in asks
    branches = [asks["answers"] if scored else (p.positive, p.negative) for p in pairs]
    trees, row = trees_of(prompts, branches, packed=size.lm.packs, keep_last=not scored)
    nodes = _nodes(trees)
    behind = Pass(
        len(pairs) * nodes,
        longest + (row or nodes),
        prefix=len(pairs) * longest,
        asked=sum(_asked(tree, 0) for tree in trees) if scored else 0,
    )
    return _prefix_cost(size, len(pairs), longest) + behind.cost(size)


def _choices(job: ChoiceJob, size: NetworkSize, batch: Sequence) -> Cost:
    requests, steering = [job.requests[i] for i in batch], job.intervention
    prompts = [request.prompt for request in requests]
    whole = steering.reach == Reach.all_tokens
    answers = [request.answers for request in requests]
    trees, row = trees_of(prompts, answers, packed=size.lm.packs, whole=whole)
    nodes, longest = _nodes(trees), 0 if whole else _longest(prompts)
    shared = fed_by_first_copy(size.lm, steering, requests)
    groups = [list(group) for group in job.groups]
    if shared != Site.head:
        groups = split_groups(groups, PACKED_NODES // nodes - 1)
    starts = [min((steering.first_layer(c) for c in g[1:]), default=0) for g in groups]
    skipped = [len(prompt) - 1 if whole else 0 for prompt in prompts]
    asked = sum(_asked(tree, skip) for tree, skip in zip(trees, skipped, strict=True))
    cost, one_copy = _prompts_cost(size, prompts, steering), len(trees) * nodes
    prefix = len(trees) * longest
    if any(starts):
        below = Pass(one_copy, longest + (row or nodes), prefix=prefix, layers=max(starts))
        cost += below.cost(size)
    for group, start in zip(groups, starts, strict=True):
        attending = 1 if shared == Site.head else len(group)
        cost += Pass(
            one_copy * len(group),
            longest + (row or attending * nodes),
            prefix=prefix,
            asked=asked * len(group),
            layers=size.layers - start,
            copies=len(group),
            idle=size.idle(shared) if shared else 0,
            attends_once=shared == Site.head,
        ).cost(size)
    return cost


def _texts(job: TextJob, size: NetworkSize, batch: Batch) -> Cost:
    """Count every text at its full length."""
    asked = [(job.requests[i], cells) for i, cells in batch]
    prompts = [request.prompt for request, _ in asked]
    steering, longest = job.intervention, _longest(prompts)
    rows = sum(_rows(cells, steering) for _, cells in asked)
    steps = max(request.max_new_tokens for request, _ in asked)
    cost = _prompts_cost(size, prompts, steering)
    if steering.reach == Reach.all_tokens:
        cost += _prefix_cost(size, rows, longest)
    side = stand_side_by_side(size.lm, steering, asked[0][0], list(asked[0][1]))
    slots = max(_rows(cells, steering) for _, cells in asked) if side else 1
    tokens = len(asked) * slots if side else rows
    step = Pass(
        tokens,
        longest + slots * (steps + 1) // 2,  # grows by `slots` a step
        prefix=longest * (len(asked) if side else rows) + tokens * steps,
        asked=rows,
    ).cost(size)
    return cost + step.times(steps)


def _rows(cells: Sequence[int], steering: Intervention) -> int:
    """Count the rows of a prompt: its cells, and those whose values stand for the unsteered."""
    if not steering.overwrites:
        return len(cells)
    steered = sum(cell != 0 for cell in cells)
    if steering.reach != Reach.last_prompt:
        return len(cells) + steered
    return len(cells) + (1 if steered and 0 not in cells else 0)


def _prompts_cost(
    size: NetworkSize, prompts: Sequence[Sequence[int]], steering: Intervention
) -> Cost:
    """Count what stands in front of the branches; an intervention that reads has all of it run."""
    reads = isinstance(steering, ReadsPrompts)
    if steering.reach == Reach.all_tokens and not reads:
        return NOTHING
    return _prefix_cost(size, len(prompts), _longest(prompts) + reads)


def _prefix_cost(size: NetworkSize, count: int, longest: int) -> Cost:
    return Pass(count * longest, longest).cost(size) if longest else NOTHING


def _longest(prompts: Sequence[Sequence[int]]) -> int:
    """Count the tokens of the longest prompt but its last, which the trees hold."""
    return max(map(len, prompts)) - 1


def _nodes(trees: Sequence[Tree]) -> int:
    return max(len(tree.tokens) for tree in trees)


def _asked(tree: Tree, skip: int) -> int:
    """Count the nodes that an answer's tokens stand behind."""
    return len({node for path in tree.paths for node in path[skip:]})


COSTS: dict[type[Job], Callable[..., Cost]] = {
    PairJob: _pairs,
    ChoiceJob: _choices,
    TextJob: _texts,
}
"""A kind of job → what counts a batch of it."""
