"""Follow `generate`: what its prompts are, and what it prepared for the pass that comes next."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from sadi_bench.models.hooks import replaced
from sadi_bench.steering.passes import Prompts, arguments, real_columns


@dataclass
class _Generation:
    """Follow one call of `generate`; `width` is that of the mask it was given."""

    width: int
    prompts: Prompts | None = None


@dataclass(frozen=True)
class Step:
    """Hold what `generate` prepared for the pass that comes next."""

    prompts: Prompts
    tokens: Tensor
    mask: Tensor | None


class _Here(threading.local):
    """Hold the calls that one thread is in, the innermost last."""

    generations: tuple[_Generation, ...] = ()
    step: Step | None = None


class GenerateCalls:
    """Note what every thread's `generate` does with a network."""

    def __init__(self, network: PreTrainedModel) -> None:
        self.network = network
        self._here = _Here()

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Stand between the network and its own methods while in the context."""
        with ExitStack() as stack:
            for method, around in (
                ("generate", self._generate),
                ("_expand_inputs_for_generation", self._expand),
                ("prepare_inputs_for_generation", self._prepare),
                ("get_compiled_call", self._get_compiled_call),
            ):
                stack.enter_context(replaced(self.network, method, around))
            yield

    def next_step(self) -> Step | None:
        """Return what was prepared for the pass that begins now, once; None of a plain pass."""
        step, self._here.step = self._here.step, None
        return step

    def _generate(self, generate: Callable) -> Callable:
        def noted(*args: Any, **kwargs: Any) -> Any:
            here, mask = self._here, kwargs.get("attention_mask")
            before = here.generations
            here.generations = (*before, _Generation(0 if mask is None else mask.shape[1]))
            try:
                return generate(*args, **kwargs)
            finally:
                here.generations, here.step = before, None

        return noted

    def _expand(self, expand: Callable) -> Callable:
        """Note the prompts, before they are repeated for beams; no mask is one without padding."""

        def noted(*args: Any, **kwargs: Any) -> Any:
            if self._here.generations:
                given, generation = arguments(expand, args, kwargs), self._here.generations[-1]
                tokens, mask = given.get("inputs_embeds"), given.get("attention_mask")
                tokens = given["input_ids"] if tokens is None else tokens
                tokens = tokens.to(self.network.get_input_embeddings().weight.device)
                total = max(tokens.shape[1], generation.width)  # wider where a cache has the rest
                real = real_columns(mask, (len(tokens), total), tokens.device)
                whole = tokens if tokens.shape[1] == total else None
                generation.prompts = Prompts(whole, real)
            return expand(*args, **kwargs)

        return noted

    def _prepare(self, prepare: Callable) -> Callable:
        def noted(*args: Any, **kwargs: Any) -> Any:
            here, given = self._here, arguments(prepare, args, kwargs)
            if here.generations and (prompts := here.generations[-1].prompts) is not None:
                here.step = Step(prompts, given["input_ids"], given.get("attention_mask"))
            return prepare(*args, **kwargs)

        return noted

    def _get_compiled_call(self, _own: Callable) -> Callable:
        """Keep `generate` from compiled code: what was compiled without hooks runs without them."""
        return lambda *_args, **_kwargs: self.network.__call__
