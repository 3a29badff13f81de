"""Read the few log-probabilities that are needed off the final hidden states."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.layout import Layout
from sadi_bench.models.shapes import Float, Int

LOGITS_AT_ONCE = {"cpu": 1 << 24, "cuda": 1 << 27}
"""Entries of [row vocab] held at a time: the vocabulary never meets a whole batch of cells."""

LOGITS_IN_CACHE = 1 << 20
"""Entries turned to float32 at a time on a CPU: the sum over the vocabulary stays in its cache."""


@dataclass(frozen=True)
class Successors:
    """List the tokens whose probability is asked for behind every node.

    tokens: all that an answer of the prompt puts behind what the node has read; -1 is padding.
    nodes: which of batch × node have any, in ascending order.
    steps[request][answer]: the (row, successor) pairs whose scores add up to the answer's.
    """

    tokens: Int[Tensor, "batch node successor"]
    nodes: Int[Tensor, " row"]
    steps: list[list[list[tuple[int, int]]]]


def successors_of(layout: Layout, answers: Sequence[Sequence[Sequence[int]]]) -> Successors:
    """Find which tokens the answers of each prompt put behind which node."""
    following = [following_tokens(tails) for tails in answers]
    behind: dict[tuple[int, int], list[int]] = {}
    for i, (paths, tails) in enumerate(zip(layout.paths, answers, strict=True)):
        for path, answer in zip(paths, tails, strict=True):
            for depth, node in enumerate(path[: len(answer)]):
                # In rows two nodes may have read the same; each is asked for all that follows it.
                behind[i, node] = following[i][tuple(answer[:depth])]
    asked = sorted(behind)
    table = torch.full((*layout.shape, max(map(len, behind.values()))), -1)
    for (i, node), tokens in behind.items():
        table[i, node, : len(tokens)] = torch.tensor(tokens)
    rows = {place: row for row, place in enumerate(asked)}
    steps = [
        [
            [(rows[i, n], behind[i, n].index(t)) for n, t in zip(path, answer, strict=True)]
            for path, answer in zip(paths, tails, strict=True)
        ]
        for i, (paths, tails) in enumerate(zip(layout.paths, answers, strict=True))
    ]
    nodes = torch.tensor([i * layout.shape[1] + node for i, node in asked])
    return Successors(table, nodes, steps)


def following_tokens(answers: Sequence[Sequence[int]]) -> dict[tuple[int, ...], list[int]]:
    """Map every beginning of an answer to the tokens that answers put behind it."""
    following: dict[tuple[int, ...], list[int]] = {}
    for answer in answers:
        for depth, token in enumerate(answer):
            tokens = following.setdefault(tuple(answer[:depth]), [])
            if token not in tokens:
                tokens.append(token)
    return following


@dataclass(frozen=True)
class TokenScores:
    """Hold what the whole vocabulary says behind the asked nodes; natural logarithms, float32.

    logprobs: of the node's successors, in their order; of padding they mean nothing.
    best: the arg-max of the vocabulary. outside: the arg-max of all tokens but the node's
    successors, with its log-probability. Of equal tokens the lowest id is taken.
    """

    logprobs: Float[Tensor, "row cell successor"]
    best: Int[Tensor, "row cell"]
    outside: Int[Tensor, "row cell"]
    outside_logprobs: Float[Tensor, "row cell"]


def token_scores(
    lm: LanguageModel,
    hidden: Float[Tensor, "batch cell node width"],
    successors: Successors,
) -> TokenScores:
    """Score the successors of every node that has any, in every cell; rows as in `nodes`.

    float32, whatever the model's type. All stays on the device, so that nothing waits for it.
    """
    device, num_cells = hidden.device, hidden.shape[1]
    asked = lm.place(successors.nodes).to(device)
    rows = hidden.transpose(1, 2).flatten(0, 1)[asked].flatten(0, 1)  # [row·cell width]
    tokens = successors.tokens.flatten(0, 1)[successors.nodes]
    tokens = torch.where(tokens < 0, tokens[:, :1], tokens)  # the first one again, not token 0
    tokens = lm.place(tokens).repeat_interleave(num_cells, dim=0)
    vocab = lm.network.config.vocab_size
    step = max(1, LOGITS_AT_ONCE.get(device.type, LOGITS_AT_ONCE["cpu"]) // vocab)
    small = max(1, LOGITS_IN_CACHE // vocab) if device.type == "cpu" else step
    found = []
    for some, their_tokens in zip(rows.split(step), tokens.split(step), strict=True):
        logits = lm.output_logits(some)
        parts = their_tokens.to(logits.device).split(small)
        found += [_read(p.float(), w) for p, w in zip(logits.split(small), parts, strict=True)]
    columns = map(torch.cat, zip(*found, strict=True))
    return TokenScores(*(column.unflatten(0, (-1, num_cells)) for column in columns))


def _read(
    logits: Float[Tensor, "row vocab"], wanted: Int[Tensor, "row successor"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read the columns of `TokenScores` off some rows' logits, which are used up."""
    top, best = logits.max(dim=1, keepdim=True)
    asked = logits.gather(1, wanted)
    second, outside = logits.scatter_(1, wanted, -torch.inf).max(dim=1)
    logits.scatter_(1, wanted, asked)
    total = logits.sub_(top).exp_().sum(dim=1, keepdim=True).log_()
    above = torch.cat([asked, second[:, None]], dim=1) - top - total
    return above[:, :-1], best[:, 0], outside, above[:, -1]


def best_tokens(lm: LanguageModel, hidden: Float[Tensor, "row width"]) -> list[int | None]:
    """Return the arg-max of the vocabulary behind every row; None where it has no number."""
    step = LOGITS_AT_ONCE.get(hidden.device.type, LOGITS_AT_ONCE["cpu"])
    best = []
    for some in hidden.split(max(1, step // lm.network.config.vocab_size)):
        top, token = lm.output_logits(some).max(dim=1)
        best.append(torch.where(top.isfinite() & some.isfinite().all(dim=1), token, -1))
    return [None if token < 0 else token for token in torch.cat(best).tolist()]
