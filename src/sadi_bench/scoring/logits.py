"""Read the few log-probabilities that are needed off the final hidden states."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.packing import Layout
from sadi_bench.models.shapes import Bool, Float, Int

LOGITS_AT_ONCE = 1 << 24
"""Entries of [row vocab] held at a time: the vocabulary never meets a whole batch of cells."""


@dataclass(frozen=True)
class Successors:
    """List the tokens whose probability is asked for behind every node.

    tokens: -1 where there is none.
    steps[request][answer]: the (node, successor) pairs whose scores add up to the answer's.
    """

    tokens: Int[Tensor, "batch node successor"]
    steps: list[list[list[tuple[int, int]]]]


def successors_of(layout: Layout, answers: Sequence[Sequence[Sequence[int]]]) -> Successors:
    """Find which tokens the answers of each prompt put behind which node."""
    batch, nodes = layout.shape
    behind: list[list[list[int]]] = [[[] for _ in range(nodes)] for _ in range(batch)]
    steps: list[list[list[tuple[int, int]]]] = []
    for row, paths, tails in zip(behind, layout.paths, answers, strict=True):
        steps.append([])
        for path, answer in zip(paths, tails, strict=True):
            for node, token in zip(path, answer, strict=True):
                if token not in row[node]:
                    row[node].append(token)
            pairs = zip(path, answer, strict=True)
            steps[-1].append([(node, row[node].index(token)) for node, token in pairs])
    most = max(len(tokens) for row in behind for tokens in row)
    table = torch.full((batch, nodes, most), -1)
    for i, row in enumerate(behind):
        for node, tokens in enumerate(row):
            table[i, node, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
    return Successors(table, steps)


def token_scores(
    lm: LanguageModel,
    hidden: Float[Tensor, "batch cell node width"],
    successors: Int[Tensor, "batch node successor"],
) -> tuple[
    Float[np.ndarray, "batch node successor cell"], Bool[np.ndarray, "batch node successor cell"]
]:
    """Score the successors of every node in every cell.

    Returns log-probabilities in float32, whatever the model's type, and whether the token is the
    arg-max of the vocabulary.
    """
    asked = (successors >= 0).any(dim=-1)  # [batch node]
    rows = hidden.transpose(1, 2)[asked.to(hidden.device)]  # [row cell width]
    num_rows, num_cells, width = rows.shape
    tokens = successors[asked].clamp(min=0).to(hidden.device)
    tokens = tokens[:, None].expand(num_rows, num_cells, -1).flatten(0, 1)
    rows = rows.reshape(-1, width)
    step = max(1, LOGITS_AT_ONCE // lm.network.config.vocab_size)
    logprobs, greedy = [], []
    for first in range(0, len(rows), step):
        logits = lm.output_logits(rows[first : first + step]).float()
        wanted = tokens[first : first + step].to(logits.device)
        logprobs.append(logits.gather(1, wanted) - logits.logsumexp(dim=1, keepdim=True))
        greedy.append(logits.argmax(dim=1, keepdim=True) == wanted)
    return _dense(asked, torch.cat(logprobs), num_cells), _dense(
        asked, torch.cat(greedy), num_cells
    )


def _dense(asked: Tensor, found: Tensor, num_cells: int) -> np.ndarray:
    """Put rows [row·cell successor] back to their nodes: [batch node successor cell]."""
    found = found.unflatten(0, (-1, num_cells)).transpose(1, 2).cpu()
    dense = found.new_zeros(*asked.shape, *found.shape[1:])
    dense[asked] = found
    return dense.numpy()
