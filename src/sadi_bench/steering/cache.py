"""Keep what was read off a model's activations, for the next method and the next run."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sadi_bench.disk import cache_folder
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.provenance import library_versions, source_digest
from sadi_bench.sealed import keep_file, kept_file

NO_KEY = ""
SUFFIX = ".safetensors"
CODE = "models", "steering/activations.py"  # all of this package that computes an activation


def cache_key(lm: LanguageModel, *inputs: object) -> str:
    """Hash all that decides an activation: weights, types, device, libraries, code and inputs.

    `NO_KEY` for a network that was made in memory, whose weights nobody named: not kept.
    """
    if not lm.fingerprint:
        return NO_KEY
    made_by = source_digest(*CODE), library_versions()
    parts = (lm.fingerprint, str(lm.dtype), str(lm.device), *made_by, *inputs)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def kept_tensors(key: str) -> dict[str, Tensor] | None:
    """Read what was kept under a key; None if nothing was, or it is damaged, which is told."""
    if key == NO_KEY or (path := kept_file(_folder(), key, SUFFIX)) is None:
        return None
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        return None


def keep_tensors(key: str, tensors: Mapping[str, Tensor]) -> None:
    """Keep tensors under a key, atomically; a cache that cannot be written is no error."""
    if key == NO_KEY:
        return
    try:
        keep_file(_folder(), key, SUFFIX, save(dict(tensors)))
    except (OSError, SafetensorError):
        return


def _folder() -> Path:
    return cache_folder() / "activations"
