"""Run a prompt's prefix once and many copies of its tree of branches behind it.

All copies stand in one sequence: the 4-D mask lets a node see the prefix, its ancestors and itself,
and position ids are shared. Families that take no such mask (alibi) run one row a branch behind a
shared prefix instead.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from sadi_bench.models.families import Site
from sadi_bench.models.hooks import fed_by_first_copy, only_blocks
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.layout import Layout
from sadi_bench.models.shapes import Bool, Float, Int


class _SharedPrefixLayer(DynamicLayer):
    """Show attention the prefix and the new keys, but keep only the prefix.

    `copies` rows behind one prefix each see it; it is repeated only while a layer runs.
    """

    def __init__(self, keys: Tensor, values: Tensor, copies: int) -> None:
        super().__init__()
        self.keys, self.values, self.copies = keys, values, copies
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple:
        keys, values = self.keys, self.values
        if self.copies > 1:
            keys = keys.repeat_interleave(self.copies, dim=0)
            values = values.repeat_interleave(self.copies, dim=0)
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


@dataclass(frozen=True)
class Prefix:
    """Hold keys and values of every prompt's tokens but the last; shorter prompts padded right."""

    lengths: Int[Tensor, " batch"]
    layers: list[tuple[Tensor, Tensor]]

    @property
    def padded_length(self) -> int:
        """How many keys a prompt has, padding included."""
        return self.layers[0][0].shape[-2] if self.layers else 0

    def cache(self, copies: int = 1) -> Cache | None:
        """Make a cache that several passes can read: no pass leaves anything in it."""
        if not self.layers:
            return None
        cache = DynamicCache()
        cache.layers = [_SharedPrefixLayer(k, v, copies) for k, v in self.layers]
        return cache


def run_prefix(
    lm: LanguageModel, prompts: Sequence[Sequence[int]], *, with_last: bool = False
) -> Prefix:
    """Run all tokens but the last of every prompt, once, for all cells.

    Right padding under a causal mask changes nothing before it, so no mask is needed here and the
    fast causal kernels serve; the branches' mask hides the padding. `with_last` runs the last
    token too, for what is read on the way; its key counts as padding.
    """
    lengths = torch.tensor([len(p) - 1 for p in prompts])
    longest = int(lengths.max()) + with_last
    if longest == 0:
        return Prefix(lengths, [])
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        shown = prompt if with_last else prompt[:-1]
        ids[i] = prompt[0]  # padding; no special token, which some networks warn of
        ids[i, : len(shown)] = torch.tensor(shown)
    cache = DynamicCache()  # without the config: a sliding cache would drop keys that branches need
    lm.backbone(input_ids=lm.place(ids), past_key_values=cache, use_cache=True)
    return Prefix(lengths, [(layer.keys, layer.values) for layer in cache.layers])


def run_branches(
    lm: LanguageModel,
    prefix: Prefix,
    layout: Layout,
    copies: int,
    *,
    start: int = 0,
    stop: int | None = None,
    entry: Float[Tensor, "batch node width"] | None = None,
    first_copy_feeds: Site | None = None,
) -> Float[Tensor, "batch copy node width"]:
    """Run `copies` of every tree behind its prefix; return the final hidden states.

    Only blocks start..stop-1 run; `entry` [batch node width] is what block `start` receives in
    every copy (None where start is 0). Returned: [batch copy node width], final norm applied.
    `first_copy_feeds` names a site that the caller overwrites everywhere with the first copy's
    values: what feeds it runs for that copy alone, and attention does if it is what feeds it.
    """
    stop = lm.num_layers if stop is None else stop
    seen = 1 if first_copy_feeds == Site.head else copies  # copies that attention runs
    shape = layout.model_shape(seen)
    positions = prefix.lengths[:, None] + layout.depths
    kwargs = (_row_arguments if layout.row_length else _packed_arguments)(lm, prefix, layout, seen)
    if lm.takes_position_ids:
        kwargs["position_ids"] = lm.place(_repeated(positions, seen).reshape(shape))
    if entry is not None:
        entry = _repeated(entry, seen).reshape(*shape, entry.shape[-1])
    with ExitStack() as stack:
        if first_copy_feeds is not None:
            sharing = _first_copy_feeds(lm, layout, copies, first_copy_feeds, start)
            stack.enter_context(sharing)
        stack.enter_context(only_blocks(lm.network, lm.family, start, stop, entry))
        output = lm.backbone(
            input_ids=lm.place(_repeated(layout.tokens, seen).reshape(shape)),
            past_key_values=prefix.cache(shape[0] // len(positions)),
            use_cache=bool(prefix.layers),
            **kwargs,
        )
    return layout.unpack(output.last_hidden_state)


def _repeated(values: Tensor, copies: int) -> Tensor:
    """Put a copy axis behind the batch axis."""
    return values[:, None].expand(-1, copies, *values.shape[1:])


def _first_copy_feeds(
    lm: LanguageModel, layout: Layout, copies: int, site: Site, start: int
) -> AbstractContextManager[None]:
    def narrow(values: Tensor) -> Tensor:
        return layout.pack(layout.unpack(values)[:, :1], values)

    def widen(values: Tensor) -> Tensor:
        few = layout.unpack(values)
        return (
            values if few.shape[1] == copies else layout.pack(_repeated(few[:, 0], copies), values)
        )

    return fed_by_first_copy(lm.network, lm.family, site, start, narrow, widen)


def _row_arguments(lm: LanguageModel, prefix: Prefix, layout: Layout, copies: int) -> dict:
    """Mask the padding of the prefix, row by row; alibi counts positions by this mask."""
    batch = len(prefix.lengths)
    rows, _length = layout.model_shape(copies)
    real = torch.arange(prefix.padded_length) < prefix.lengths[:, None]
    mask = torch.cat([real, torch.ones(batch, layout.row_length, dtype=torch.bool)], dim=1)
    return {"attention_mask": lm.place(mask.repeat_interleave(rows // batch, dim=0).long())}


def _packed_arguments(lm: LanguageModel, prefix: Prefix, layout: Layout, copies: int) -> dict:
    """Let every node see the prefix, its ancestors and itself, in its own copy."""
    device, (batch, nodes) = lm.device, layout.shape
    key_positions = torch.arange(prefix.padded_length)
    real = (key_positions < prefix.lengths[:, None])[:, None]  # [batch 1 key]
    positions = prefix.lengths[:, None] + layout.depths  # [batch node]

    def seen(window: int | None) -> Tensor:
        past, tree = real.expand(batch, nodes, -1), layout.sees
        if window is not None:
            past = past & (positions[:, :, None] - key_positions < window)
            tree = tree & (layout.depths[:, :, None] - layout.depths[:, None] < window)
        past = lm.place(past)[:, None].expand(batch, copies, nodes, -1)
        own = torch.zeros(batch, copies, nodes, copies, nodes, dtype=torch.bool, device=device)
        copy = torch.arange(copies, device=device)
        own[:, copy, :, copy] = lm.place(tree)
        return torch.cat(
            [past.flatten(1, 2), own.reshape(batch, copies * nodes, copies * nodes)], dim=-1
        )

    return {"attention_mask": attention_masks(lm, seen)}


def attention_masks(
    lm: LanguageModel, seen: Callable[[int | None], Bool[Tensor, "batch query key"]]
) -> Tensor | dict[str, Tensor]:
    """Turn who sees whom within a window into additive masks, as many as the model has types."""

    def additive(window: int | None) -> Float[Tensor, "batch 1 query key"]:
        visible = lm.place(seen(window))
        mask = torch.zeros(visible.shape, dtype=lm.dtype, device=visible.device)
        return mask.masked_fill_(~visible, torch.finfo(lm.dtype).min)[:, None]

    window = getattr(lm.network.config, "sliding_window", None)
    if lm.family.masks == "one":
        return additive(window)
    return {
        name: additive(window if name == "sliding_attention" else None)
        for name in set(lm.network.config.layer_types)
    }
