"""When memory runs out: a smaller pass, and what to say when none is small enough."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel

Batch = TypeVar("Batch")
Found = TypeVar("Found")


def fitting_passes(
    lm: LanguageModel,
    take: Callable[[], Batch],
    run: Callable[[Batch], Found],
    shrink: Callable[[Batch], bool],
) -> Iterator[tuple[Batch, Found]]:
    """Run what `take` gives until it gives nothing; yield each batch with its result.

    Where memory runs out `shrink` makes the next batch smaller, or says that there is none.

    Raises:
        SettingError: the smallest batch does not fit.
    """
    while batch := take():
        try:
            found = run(batch)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if not shrink(batch):
                raise memory_error(lm, error) from error
            continue
        yield batch, found


def out_of_memory(error: RuntimeError) -> bool:
    """Say whether a pass failed for want of memory, so that a smaller one may do."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def memory_error(lm: LanguageModel, error: RuntimeError) -> SettingError:
    """Say what to do when the smallest pass does not fit."""
    return SettingError(
        f"model={lm.name}: out of memory with one prompt and one cell ({str(error)[:80]}); "
        "choose a smaller model or model.dtype=bfloat16."
    )
