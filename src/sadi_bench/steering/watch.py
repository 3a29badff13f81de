"""Watch a network's forward passes, so that open blocks can plan each of them before it begins."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, cast, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.utils import ModelOutput

from sadi_bench.errors import SettingError
from sadi_bench.models.families import family_of, trunk_of
from sadi_bench.models.hooks import Edit, replaced
from sadi_bench.models.shapes import Bool
from sadi_bench.steering.generate_calls import GenerateCalls, Step
from sadi_bench.steering.passes import (
    Pass,
    Prompts,
    arguments,
    real_columns,
    taken,
    unseen_tokens,
)

_LOCK = threading.Lock()
_WATCH = "_sadi_bench_watch"  # the attribute of a watched network that holds its `Watch`


@runtime_checkable
class Block(Protocol):
    """Plan, before a pass begins, what to edit in it."""

    def plan(self, watch: "Watch", passing: Pass) -> Edit | None:
        """Return the edit of this pass; None leaves it alone."""


class _Here(threading.local):
    """Hold what acts in the pass that one thread is in."""

    edits: Mapping[Any, Edit | None] = {}
    unsteered: bool = False


class Watch:
    """Follow a network's passes, in every thread, and let the open blocks plan each of them."""

    def __init__(self, network: PreTrainedModel) -> None:
        self.network = network
        self.blocks: tuple[Block, ...] = ()
        self._here = _Here()
        self._seen: WeakKeyDictionary[Cache, tuple[Prompts, Tensor]] = WeakKeyDictionary()
        self._trunk = trunk_of(network, family_of(network.config))
        self._calls = GenerateCalls(network)
        self._replaced = ExitStack()
        self._replaced.enter_context(self._calls.followed())
        self._replaced.enter_context(replaced(self._trunk, "forward", self._forward))

    def leave(self) -> None:
        """Give the network its own methods back."""
        self._replaced.close()

    def edit(self, block: Block, layer: int, raw: Tensor) -> Tensor | None:
        """Do what the block planned for the pass that this thread is in."""
        edit = self._here.edits.get(block)
        return None if edit is None else edit(layer, raw)

    def read_unsteered(
        self,
        block: Block,
        tokens: Tensor,
        real: Bool[Tensor, "row column"],
        read: Callable[[int, Tensor, Tensor], None],
    ) -> None:
        """Run rows of tokens without any block's edits, and show `read` the block's site.

        It is called with a layer, values [row position width] and what of them is real: rows are
        stripped of their padding, and padded right.
        """
        lengths = real.sum(dim=1)
        positions = torch.arange(int(lengths.max()), device=real.device)
        shown = positions < lengths[:, None]
        order = (~real).to(torch.uint8).argsort(dim=1, stable=True)[:, : len(positions)]
        order = torch.where(shown, order, order[:, :1])  # pads with a token of the row's own
        inputs = {"inputs_embeds" if tokens.dim() == 3 else "input_ids": taken(tokens, order)}

        def sink(layer: int, raw: Tensor) -> None:
            read(layer, raw.reshape(*shown.shape, raw.shape[-1]), shown.to(raw.device))

        with self._acting({block: sink}, unsteered=True):
            self._trunk(**inputs, use_cache=False)

    def tokens_of(self, passing: Pass) -> Tensor:
        """Return all that the rows have read up to the end of the pass, ids or embeddings."""
        if passing.parts is None:
            raise unseen_tokens()
        rows, columns = passing.real.shape
        parts = [part.repeat_interleave(rows // len(part), dim=0) for part in passing.parts]
        if len({part.dim() for part in parts}) > 1:
            embed = self.network.get_input_embeddings()
            parts = [part if part.dim() == 3 else embed(part) for part in parts]
        return torch.cat(parts, dim=1)[:, :columns]

    @contextmanager
    def _acting(self, edits: Mapping[Any, Edit | None], unsteered: bool = False) -> Iterator[None]:
        here, before = self._here, (self._here.edits, self._here.unsteered)
        here.edits, here.unsteered = edits, unsteered
        try:
            yield
        finally:
            here.edits, here.unsteered = before

    def _forward(self, forward: Callable) -> Callable:
        def steered(*args: Any, **kwargs: Any) -> Any:
            if self._here.unsteered:
                return forward(*args, **kwargs)
            step = self._calls.next_step()
            given = arguments(forward, args, kwargs)
            passing = self._passing(given, step)
            with self._acting({block: block.plan(self, passing) for block in self.blocks}):
                output = forward(*args, **kwargs)
            cache = _cache_of(given, output)
            if step is None and cache is not None and passing.prompts is not None:
                self._seen[cache] = passing.prompts, self.tokens_of(passing)
            return output

        return steered

    def _passing(self, given: Mapping[str, Any], step: Step | None) -> Pass:
        embedding = cast(torch.nn.Embedding, self.network.get_input_embeddings())
        device = embedding.weight.device
        tokens, past = given.get("input_ids"), given.get("past_key_values")
        tokens = (given["inputs_embeds"] if tokens is None else tokens).to(device)
        start = 0 if past is None else int(past.get_seq_length())
        shape = len(tokens), start + tokens.shape[1]
        if given.get("cu_seq_lens_q") is not None:
            raise SettingError(
                "cu_seq_lens_q: texts packed into one row (continuous batching) cannot be told "
                "apart here; give one row a text."
            )
        if step is not None:
            prompts, width = step.prompts, step.prompts.real.shape[1]
            behind = step.tokens.shape[1] - max(shape[1] - width, 0)
            later = step.tokens[:, behind:].to(device)
            parts = None if prompts.tokens is None else (prompts.tokens, later)
            return Pass(real_columns(step.mask, shape, device), start, prompts, width, parts)
        real = real_columns(given.get("attention_mask"), shape, device)
        if start == 0:
            return Pass(real, start, Prompts(tokens, real), shape[1], (tokens,))
        seen = None if past is None else self._seen.get(past)
        if seen is None or len(seen[1]) != len(tokens) or seen[1].shape[1] < start:
            return Pass(real, start, None, 0, None)
        prompts, read = seen
        return Pass(real, start, prompts, 0, (read[:, :start], tokens))  # a cache may be cut short


@contextmanager
def watched(network: PreTrainedModel, block: Block) -> Iterator[Watch]:
    """Let a block plan the network's passes; all blocks that are open share one watch."""
    with _LOCK:
        watch = network.__dict__.get(_WATCH)
        if watch is None:
            watch = Watch(network)
            setattr(network, _WATCH, watch)
        watch.blocks = (*watch.blocks, block)
    try:
        yield watch
    finally:
        with _LOCK:
            watch.blocks = tuple(other for other in watch.blocks if other is not block)
            if not watch.blocks:
                watch.leave()
                delattr(network, _WATCH)


def _cache_of(given: Mapping[str, Any], output: Any) -> Cache | None:
    """Find the cache that a pass has filled; it makes one where it was given none."""
    if (past := given.get("past_key_values")) is not None:
        return past
    parts = output.to_tuple() if isinstance(output, ModelOutput) else output
    return next((part for part in parts if isinstance(part, Cache)), None)


def check_unwatched(network: PreTrainedModel) -> None:
    """Refuse to measure inside an open block: the network would be steered twice.

    Raises:
        SettingError: a block of `applied` is open on the network.
    """
    if _WATCH in vars(network):
        raise SettingError(
            "applied: this network is steered by an open `with applied(...)` block, so it cannot "
            "be measured as it is; leave the block first."
        )
