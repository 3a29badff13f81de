"""When memory runs out: whether a smaller pass may do, and what to say when none does."""

import torch

from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel


def out_of_memory(error: RuntimeError) -> bool:
    """Say whether a pass failed for want of memory, so that a smaller one may do."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def memory_error(lm: LanguageModel, error: RuntimeError) -> SettingError:
    """Say what to do when the smallest pass does not fit."""
    return SettingError(
        f"model={lm.name}: out of memory with one prompt and one cell ({str(error)[:80]}); "
        "choose a smaller model or model.dtype=bfloat16."
    )
