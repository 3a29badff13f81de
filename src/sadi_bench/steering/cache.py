"""Keep what was read off a model's activations, for the next method and the next run."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sadi_bench.models.language_model import LanguageModel
from sadi_bench.packages import cache_folder

NO_KEY = ""


def cache_key(lm: LanguageModel, *inputs: object) -> str:
    """Hash all that decides an activation: weights, types, device, libraries, code and inputs.

    `NO_KEY` for a network that was made in memory, whose weights nobody named: not kept.
    """
    if not lm.fingerprint:
        return NO_KEY
    parts = (lm.fingerprint, str(lm.dtype), str(lm.device), _code(), *inputs)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def kept_tensors(key: str) -> dict[str, Tensor] | None:
    """Read what was kept under a key; None if nothing was, or it does not read."""
    try:
        return load_file(_path(key)) if key != NO_KEY else None
    except (OSError, SafetensorError):
        return None


def keep_tensors(key: str, tensors: Mapping[str, Tensor]) -> None:
    """Keep tensors under a key, atomically; a cache that cannot be written is no error."""
    if key == NO_KEY:
        return
    path = _path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as aside:
            save_file(dict(tensors), made := Path(aside) / path.name)
            os.replace(made, path)
    except (OSError, SafetensorError):
        return


def _path(key: str) -> Path:
    return cache_folder() / "activations" / f"{key}.safetensors"


@cache
def _code() -> str:
    """Hash this package's source and name the libraries that compute."""
    digest = hashlib.sha256(f"{version('torch')} {version('transformers')}".encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
