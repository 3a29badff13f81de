"""The only place that hooks into a model or replaces its methods; each is a context manager."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps

import torch
from torch import Tensor, nn

from sadi_bench.models.families import Family, Site, blocks_of
from sadi_bench.models.shapes import Float

Edit = Callable[[int, Tensor], Tensor | None]
"""Given a layer and the site's values (any leading shape, last axis `width`), return new values,
or None to leave them."""


@contextmanager
def edited(network: nn.Module, family: Family, site: Site, edit: Edit) -> Iterator[None]:
    """Pass the site's values of every layer through `edit` while in the context."""
    point = getattr(family, site.value)

    def input_hook(layer: int) -> Callable:
        def hook(_module: nn.Module, args: tuple) -> tuple | None:
            new = edit(layer, args[0])
            return None if new is None else (new, *args[1:])

        return hook

    def output_hook(layer: int) -> Callable:
        def hook(_module: nn.Module, _args: tuple, output: Tensor | tuple) -> Tensor | tuple | None:
            values = output[0] if isinstance(output, tuple) else output
            new = edit(layer, values)
            if new is None:
                return None
            return (new, *output[1:]) if isinstance(output, tuple) else new

        return hook

    with ExitStack() as stack:
        for layer, block in enumerate(blocks_of(network, family)):
            module = block.get_submodule(point.module)
            if point.side == "input":
                handle = module.register_forward_pre_hook(input_hook(layer))
            else:
                handle = module.register_forward_hook(output_hook(layer))
            stack.callback(handle.remove)
        yield


@contextmanager
def fed_by_first_copy(
    network: nn.Module,
    family: Family,
    site: Site,
    start: int,
    narrow: Callable[[Tensor], Tensor],
    widen: Callable[[Tensor], Tensor],
) -> Iterator[None]:
    """Run what feeds the site for the first copy alone, and let its values serve all copies.

    `narrow` takes the first copy out of a hidden state, `widen` repeats it (and leaves alone what
    has all copies). The network may be run on the first copy's tokens: block `start` receives all
    copies of them. Enter after `edited`, whose edit then sees the first copy.
    """
    point = getattr(family, site.value)

    def narrow_input(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (narrow(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": narrow(kwargs["hidden_states"])}

    def widen_output(_module: nn.Module, _args: tuple, output: Tensor) -> Tensor:
        return widen(output)

    def widen_input(_module: nn.Module, args: tuple) -> tuple:
        return (widen(args[0]), *args[1:])

    blocks = blocks_of(network, family)
    with ExitStack() as stack:
        stack.callback(blocks[start].register_forward_pre_hook(widen_input).remove)
        for block in blocks[start:]:
            producer = block.get_submodule(point.producer)
            handle = producer.register_forward_pre_hook(narrow_input, with_kwargs=True)
            stack.callback(handle.remove)
            handle = block.get_submodule(point.module).register_forward_hook(widen_output)
            stack.callback(handle.remove)
        yield


@contextmanager
def only_blocks(
    network: nn.Module,
    family: Family,
    start: int,
    stop: int,
    entry: Float[Tensor, "row position width"] | None = None,
) -> Iterator[None]:
    """Run only the decoder blocks start..stop-1 while in the context; the others pass through.

    `entry` is the hidden state that block `start` receives instead of the embeddings.
    """

    def stand_in(value: Tensor | None) -> Callable:
        def forward(hidden_states: Tensor, *_args: object, **_kwargs: object) -> Tensor | tuple:
            out = hidden_states if value is None else value
            return (out, None) if family.tuple_blocks else out

        return forward

    blocks = blocks_of(network, family)
    with ExitStack() as stack:
        for layer, block in enumerate(blocks):
            if start <= layer < stop:
                continue
            own = block.__dict__.get("forward")  # set where accelerate dispatches the model
            block.forward = stand_in(entry if layer == start - 1 else None)
            stack.callback(_restore, block, "forward", own)
        yield


@contextmanager
def replaced(
    module: nn.Module, method: str, around: Callable[[Callable], Callable]
) -> Iterator[None]:
    """Let one module's method be `around(method)` while in the context; its signature stays."""
    own, bound = module.__dict__.get(method), getattr(module, method)
    setattr(module, method, wraps(bound)(around(bound)))
    try:
        yield
    finally:
        _restore(module, method, own)


def _restore(module: nn.Module, method: str, own: Callable | None) -> None:
    if own is None:
        delattr(module, method)
    else:
        setattr(module, method, own)


@contextmanager
def recorded_blocks(
    network: nn.Module, family: Family, layers: set[int]
) -> Iterator[dict[int, Tensor]]:
    """Collect the hidden state that enters each of `layers` (0 is the embedding's output)."""
    seen: dict[int, Tensor] = {}

    def hook_for(layer: int) -> Callable:
        def hook(_module: nn.Module, args: tuple) -> None:
            seen[layer] = args[0]

        return hook

    blocks = blocks_of(network, family)
    with ExitStack() as stack, torch.no_grad():
        for layer in layers:
            stack.callback(blocks[layer].register_forward_pre_hook(hook_for(layer)).remove)
        yield seen
