"""Lay out the branches behind a prompt, as one packed tree or as rows.

A *branch* is a list of tokens that follows the prompt; the branches of a prompt form a tree whose
root is the last prompt token. Where cells differ from a prompt's first token on, that is the root
and the rest of the prompt begins every branch. A *copy* of that tree is run for every cell. Both
layouts hold the same values in the same order, `[batch copy node width]`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sadi_bench.models.shapes import Bool, Float, Int

ROOT = 0


@dataclass(frozen=True)
class Tree:
    """Hold the nodes behind one prefix; node 0 is the last prompt token.

    `paths[branch]` lists the nodes of that branch, the root first, its last token included only
    where the tree was built with `keep_last`.
    """

    tokens: list[int]
    parents: list[int]
    depths: list[int]
    paths: list[list[int]]


def tree_of(last_prompt_token: int, branches: Sequence[Sequence[int]], keep_last: bool) -> Tree:
    """Share the common beginnings of the branches.

    A token's successors are all that scoring reads, so a branch's last token is needed only where
    activations are (`keep_last`).
    """
    tree = Tree([last_prompt_token], [-1], [0], [])
    children: dict[tuple[int, int], int] = {}
    for branch in branches:
        node, path = ROOT, [ROOT]
        for token in branch if keep_last else branch[:-1]:
            if (node, token) not in children:
                children[node, token] = len(tree.tokens)
                tree.tokens.append(token)
                tree.parents.append(node)
                tree.depths.append(tree.depths[node] + 1)
            node = children[node, token]
            path.append(node)
        tree.paths.append(path)
    return tree


def rows_of(
    last_prompt_token: int, branches: Sequence[Sequence[int]], keep_last: bool, length: int = 0
) -> Tree:
    """Lay every distinct branch out in a row of its own, all rows of one length.

    `length` lengthens the rows with nodes that nobody reads, to match other prompts' rows.
    """
    tails = [tuple(b if keep_last else b[:-1]) for b in branches]
    rows = list(dict.fromkeys(tails))
    length = max(length, 1 + max(len(row) for row in rows))
    tree = Tree([], [], [], [])
    for row in rows:
        first = len(tree.tokens)
        padded = [last_prompt_token, *row] + [last_prompt_token] * (length - 1 - len(row))
        tree.tokens.extend(padded)
        tree.parents.extend([-1, *range(first, first + length - 1)])
        tree.depths.extend(range(length))
    for tail in tails:
        first = rows.index(tail) * length
        tree.paths.append(list(range(first, first + len(tail) + 1)))
    return tree


@dataclass(frozen=True)
class Layout:
    """Hold the trees of a batch, padded to one number of nodes.

    `paths[prompt][branch]` lists nodes from the last prompt token on. `row_length` is 0 where all
    nodes stand in one packed sequence.
    """

    tokens: Int[Tensor, "batch node"]
    depths: Int[Tensor, "batch node"]
    sees: Bool[Tensor, "batch node node"]  # its ancestors and itself
    paths: list[list[list[int]]]
    row_length: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of prompts, number of nodes."""
        return tuple(self.tokens.shape)

    @property
    def roots(self) -> slice:
        """The nodes without parents, the same in every tree of the batch: last prompt tokens."""
        return slice(0, None, self.row_length) if self.row_length else slice(0, 1)

    def unpack(self, values: Float[Tensor, "*any width"]) -> Float[Tensor, "batch copy node width"]:
        """View a site's values as [batch copy node width], whatever shape the model gave them."""
        batch, nodes = self.shape
        return values.reshape(batch, -1, nodes, values.shape[-1])

    def pack(
        self, values: Float[Tensor, "batch copy node width"], like: Float[Tensor, "... width"]
    ) -> Float[Tensor, "... width"]:
        """Undo `unpack` for any number of copies; the model gave its values `like` these."""
        shape = self.model_shape(values.shape[1]) if like.dim() > 2 else (-1,)
        return values.reshape(*shape, values.shape[-1]).contiguous()

    def model_shape(self, copies: int) -> tuple[int, int]:
        """Return the shape that the model sees: its batch and sequence axes."""
        batch, nodes = self.shape
        length = self.row_length or copies * nodes
        return batch * copies * nodes // length, length


def trees_of(
    prompts: Sequence[Sequence[int]],
    branches: Sequence[Sequence[Sequence[int]]],
    *,
    packed: bool,
    keep_last: bool = False,
    whole: bool = False,
) -> tuple[list[Tree], int]:
    """Build the trees of a batch of prompts; also return the length of a row, 0 where packed.

    `whole` puts all tokens of the prompts into the trees, to be run without a prefix.
    """
    if whole:
        branches = [[(*p[1:], *b) for b in of] for p, of in zip(prompts, branches, strict=True)]
        prompts = [prompt[:1] for prompt in prompts]
    pairs = list(zip(prompts, branches, strict=True))
    if packed:
        return [tree_of(p[-1], b, keep_last) for p, b in pairs], 0
    row_length = max(len(branch) for b in branches for branch in b) + keep_last
    return [rows_of(p[-1], b, keep_last, row_length) for p, b in pairs], row_length


def layout_of(
    prompts: Sequence[Sequence[int]],
    branches: Sequence[Sequence[Sequence[int]]],
    *,
    packed: bool,
    keep_last: bool = False,
    whole: bool = False,
) -> Layout:
    """Build the trees of a batch of prompts, as `trees_of`, and pad them to one size."""
    trees, row_length = trees_of(prompts, branches, packed=packed, keep_last=keep_last, whole=whole)
    skipped = [len(prompt) - 1 if whole else 0 for prompt in prompts]
    nodes = max(len(t.tokens) for t in trees)
    tokens = torch.zeros(len(trees), nodes, dtype=torch.long)
    depths = torch.zeros(len(trees), nodes, dtype=torch.long)
    sees = torch.eye(nodes, dtype=torch.bool).repeat(len(trees), 1, 1)
    for i, tree in enumerate(trees):
        size = len(tree.tokens)
        tokens[i, :size] = torch.tensor(tree.tokens)
        depths[i, :size] = torch.tensor(tree.depths)
        for node, parent in enumerate(tree.parents):
            if parent >= 0:
                sees[i, node] |= sees[i, parent]
    paths = [[p[skip:] for p in tree.paths] for tree, skip in zip(trees, skipped, strict=True)]
    return Layout(tokens, depths, sees, paths, row_length)
