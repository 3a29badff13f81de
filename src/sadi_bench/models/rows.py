"""Let rows of text grow token by token behind prefixes that were run once.

A row is a prompt in one cell. All rows of a prompt stand in one sequence, side by side at every
step, behind its prefix, which is neither run nor kept twice; the 4-D mask lets each see the prefix
and itself. Or a row is a sequence behind a repeated prefix: so in families that take no such mask
(alibi), and where rows that do not see each other would grow long.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.packing import Prefix, attention_masks
from sadi_bench.models.shapes import Bool, Float, Int


class _GrowingLayer(DynamicLayer):
    """Hold keys and values of the prefix and, behind them, of `room` steps of `slots` rows.

    Nothing is copied to make room: what `keys` and `values` show grows within what was allocated.
    """

    def __init__(self, keys: Tensor, values: Tensor, slots: int, room: int) -> None:
        super().__init__()
        self.prefix, self.slots, self.room = keys.shape[-2], slots, room
        self._all = [self._allocated(found) for found in (keys, values)]
        self._show(self.prefix)
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def _allocated(self, found: Tensor) -> Tensor:
        *shape, length, width = found.shape
        whole = found.new_zeros(*shape, length + self.room * self.slots, width)
        whole[..., :length, :] = found
        return whole

    def _show(self, length: int) -> None:
        self.keys, self.values = (found[..., :length, :] for found in self._all)

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple:
        start = self.keys.shape[-2]
        for found, new in zip(self._all, (key_states, value_states), strict=True):
            found[..., start : start + new.shape[-2], :] = new
        self._show(start + key_states.shape[-2])
        return self.keys, self.values

    def keep(self, batch: Tensor, slots: Tensor) -> None:
        """Keep some sequences, and of each the rows in its `slots` [batch slot]."""
        steps = (self.keys.shape[-2] - self.prefix) // self.slots
        kept = []
        for found in (self.keys, self.values):
            some = found[batch.to(found.device)]
            own = some[..., self.prefix :, :].unflatten(-2, (steps, self.slots))
            index = slots.to(found.device)[:, None, None, :, None]
            index = index.expand(-1, own.shape[1], steps, -1, own.shape[-1])
            own = own.gather(3, index).flatten(2, 3)
            kept.append(torch.cat([some[..., : self.prefix, :], own], dim=-2))
        self.slots, self.room, length = slots.shape[1], self.room - steps, kept[0].shape[-2]
        self._all = [self._allocated(found) for found in kept]
        self.room += steps
        self._show(length)


class Rows:
    """Hold rows that grow by one token a step.

    `owners` says whose prompt each row continues, in ascending order. The prefixes are padded
    right, so a row's own tokens stand behind the padding; positions and windows leave it out.
    """

    def __init__(
        self,
        lm: LanguageModel,
        prefix: Prefix,
        owners: Int[Tensor, " row"],
        room: int,
        side_by_side: bool,
    ) -> None:
        self.lm, self.steps, self._padded = lm, 0, prefix.padded_length
        self._cache = DynamicCache()
        sequences = torch.arange(len(prefix.lengths)) if side_by_side else owners
        self.lengths = prefix.lengths[sequences]
        self._arrange(owners if side_by_side else torch.arange(len(owners)))
        self._cache.layers = [
            _GrowingLayer(*(kv[sequences.to(kv.device)] for kv in layer), self._slots, room)
            for layer in self._prefix_layers(prefix)
        ]

    def _prefix_layers(self, prefix: Prefix) -> list[tuple[Tensor, Tensor]]:
        """Return keys and values of every layer; of no token where no prompt has a prefix."""
        if prefix.layers:
            return prefix.layers
        cache = DynamicCache()
        ids = torch.zeros(len(prefix.lengths), 1, dtype=torch.long)
        self.lm.backbone(input_ids=self.lm.place(ids), past_key_values=cache, use_cache=True)
        return [(layer.keys[..., :0, :], layer.values[..., :0, :]) for layer in cache.layers]

    def _arrange(self, sequence_of: Int[Tensor, " row"]) -> None:
        """Give every row a slot in its sequence; `_place` is where it stands among all slots."""
        counts = torch.bincount(sequence_of, minlength=len(self.lengths))
        first = counts.cumsum(0) - counts
        self._sequence, self._slot = (
            sequence_of,
            torch.arange(len(sequence_of)) - first[sequence_of],
        )
        self._slots = int(counts.max())
        self._place = self._sequence * self._slots + self._slot

    def step(self, tokens: Sequence[int]) -> Float[Tensor, "row width"]:
        """Append one token to every row; return the final hidden states there."""
        ids = torch.full((len(self.lengths) * self._slots,), tokens[0])
        ids[self._place] = torch.tensor(tokens)
        shape = (len(self.lengths), self._slots)
        packs = self.lm.packs  # else the padding of the prefix is all that is masked
        mask = attention_masks(self.lm, self._seen) if packs else self._seen(None)[:, 0].long()
        kwargs = {"attention_mask": mask if packs else self.lm.place(mask)}
        if self.lm.takes_position_ids:
            positions = (self.lengths + self.steps)[:, None].expand(shape)
            kwargs["position_ids"] = self.lm.place(positions)
        output = self.lm.backbone(
            input_ids=self.lm.place(ids.reshape(shape)),
            past_key_values=self._cache,
            use_cache=True,
            **kwargs,
        )
        self.steps += 1
        return self.values(output.last_hidden_state)

    def values(self, raw: Float[Tensor, "*any width"]) -> Float[Tensor, "row width"]:
        """Take the rows' values out of a site's, whatever shape the model gave them."""
        return raw.reshape(-1, raw.shape[-1])[self._place.to(raw.device)]

    def put_back(
        self, values: Float[Tensor, "row width"], raw: Float[Tensor, "*any width"]
    ) -> Float[Tensor, "*any width"]:
        """Return a site's values with those of the rows exchanged."""
        new = raw.reshape(-1, raw.shape[-1]).clone()
        new[self._place.to(raw.device)] = values
        return new.reshape(raw.shape)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in ascending order."""
        index = torch.tensor(rows)
        sequences, sequence_of = self._sequence[index].unique(return_inverse=True)
        old_slots = self._slot[index]
        self.lengths = self.lengths[sequences]
        self._arrange(sequence_of)
        slots = torch.zeros(len(sequences), self._slots, dtype=torch.long)
        slots[self._sequence, self._slot] = old_slots
        for layer in self._cache.layers:
            layer.keep(sequences, slots)

    def _seen(self, window: int | None) -> Bool[Tensor, "sequence slot key"]:
        past, now = torch.arange(self._padded), self.lengths[:, None] + self.steps
        prefix = past < self.lengths[:, None]
        own = torch.eye(self._slots, dtype=torch.bool).repeat(1, self.steps + 1)
        if window is not None:
            prefix = prefix & (now - past < window)
            step_of = torch.arange(self.steps + 1).repeat_interleave(self._slots)
            own = own & (self.steps - step_of < window)
        shape = (len(self.lengths), self._slots, -1)
        return torch.cat([prefix[:, None].expand(shape), own.expand(shape)], dim=-1)
