"""Tell, of every forward pass of a network, what it holds of which prompts.

Columns count from a text's first token, padding included:

    0 . . . . . . . . start . . . . . . . . total
    [ in the cache      ][ what the pass runs   ]

A plain pass without a past begins new texts: its input is their prompts. Inside `generate` the
prompts are generate's input, and a pass may hold them together with what was written (no cache),
part of them (chunked prefill), or more than they are (assisted decoding).
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sadi_bench.errors import SettingError
from sadi_bench.models.shapes import Bool, Float


@dataclass(frozen=True, eq=False)
class Prompts:
    """Hold the prompts that texts begin with.

    `tokens` are ids [prompt column] or embeddings [prompt column width]; None where the first of
    them are in a cache alone. `kept` is what a block bound to these prompts, by block.
    """

    tokens: Tensor | None
    real: Bool[Tensor, "prompt column"]
    kept: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pass:
    """Hold one forward pass: its rows' columns from `start` on.

    `real` says which columns are no padding, those of the past included. `prompts` is None where
    they are in a cache that was filled unseen; row r belongs to prompt r // copies. They may lie in
    the first `prompt_columns`. `parts` are the tokens of all columns, side by side, one row or more
    a prompt; None where some were not seen.
    """

    real: Bool[Tensor, "row column"]
    start: int
    prompts: Prompts | None
    prompt_columns: int
    parts: tuple[Tensor, ...] | None

    @property
    def holds_prompts(self) -> bool:
        """Say whether a token of the prompts may be run."""
        return self.start < self.prompt_columns

    @property
    def copies(self) -> int:
        """How many rows a prompt has, side by side: beams or sequences to return."""
        return len(self.real) // len(self.prompts.real) if self.prompts else 1


def real_columns(
    mask: Any, shape: tuple[int, int], device: torch.device
) -> Bool[Tensor, "row column"]:
    """Say which columns are no padding; no mask says that all are."""
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    if not isinstance(mask, Tensor) or mask.shape != shape:
        found = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise SettingError(
            f"attention_mask={found}: the prompts' last tokens are found by a mask of rows and "
            f"columns, past included; give one of shape {shape}."
        )
    return mask.to(device).bool()


def taken(values: Tensor, order: Tensor) -> Float[Tensor, "row node width"] | Tensor:
    """Take columns of ids [row column] or values [row column width], others in each row."""
    if values.dim() == 2:
        return values.gather(1, order)
    return values.gather(1, order[..., None].expand(-1, -1, values.shape[-1]))


def unseen_tokens() -> SettingError:
    """Build the error for a pass whose cache was filled where no block saw it."""
    return SettingError(
        "past_key_values: this intervention needs the unsteered model's values, and the cache "
        "holds tokens that no block has seen; run the whole text in the block, and give generate "
        "all of its tokens."
    )


def arguments(function: Callable, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name a call's arguments, those of `**kwargs` beside the others."""
    return dict(zip(inspect.signature(function).parameters, args, strict=False)) | dict(kwargs)
