"""What to set instead of a model, or tokenizer, that did not load."""

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EDQUOT, ENOSPC, EROFS
from pathlib import Path

import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors import SafetensorError

from sadi_bench.downloads.hub import hub_answers, hub_silence
from sadi_bench.errors import SettingError
from sadi_bench.models.spec import ModelSpec


@contextmanager
def memory_errors(spec: ModelSpec) -> Iterator[None]:
    """Say what to set where a model does not fit into the memory of its device."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SettingError(
            f"model.device={spec.device}: {spec.name} does not fit into its memory as "
            f"{spec.dtype}; set model.device_map=auto, model.dtype=bfloat16 or model.device=cpu."
        ) from error


@contextmanager
def load_errors(setting: str, source: str) -> Iterator[None]:
    """Say what to set instead of a model, or tokenizer, that did not load."""
    try:
        yield
    except (SettingError, torch.OutOfMemoryError):
        raise
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        local = Path(source).exists() or isinstance(error, FileNotFoundError)
        cause = _folder_cause(error) if local else _hub_cause(error)
        remedy = (
            "delete this folder and it is made again"
            if setting == "model.package"
            else f"set {setting} to a local folder or another hub name, or choose "
            "model=smollm2-135m, which needs no hub"
        )
        raise SettingError(f"{setting}={source}: {cause}; {remedy}.") from error


def _folder_cause(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return first if isinstance(error, FileNotFoundError) else f"does not load ({first[:160]})"


def _hub_cause(error: Exception) -> str:
    """Read the reason off the chain of errors, for transformers wraps the hub's."""
    chain: list[BaseException] = [error]
    while (below := chain[-1].__cause__ or chain[-1].__context__) and below not in chain:
        chain.append(below)
    if any(isinstance(found, GatedRepoError) for found in chain):
        return "a gated model: accept its licence on the hub and set HF_TOKEN"
    if any(isinstance(found, RepositoryNotFoundError) for found in chain):
        return "the hub has no such model, or it is private (set HF_TOKEN)"
    if any(isinstance(found, RevisionNotFoundError) for found in chain):
        return "the hub has no such model.revision"
    for found in chain:
        if isinstance(found, OSError) and found.errno in (ENOSPC, EDQUOT, EACCES, EROFS):
            return f"the hub's cache cannot be written ({found.strerror}): set HF_HOME elsewhere"
    if not hub_answers():
        return f"{hub_silence()}, and it is not in the local cache"
    return f"does not load from the hub ({str(error).strip().splitlines()[0][:160]})"
