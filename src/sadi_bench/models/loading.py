"""Load a language model: from the hub, a folder, a package, or made in memory."""

import hashlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from sadi_bench.errors import SettingError
from sadi_bench.models.families import family_of
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.packaged import packaged_model
from sadi_bench.models.spec import ModelSpec
from sadi_bench.models.tiny_random import tiny_random

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolved(spec: ModelSpec) -> ModelSpec:
    """Replace `auto` by what this machine gets, so that a run's config says what was run."""
    device = _device(spec.device)
    return replace(spec, device=str(device), dtype=_dtype(spec.dtype, device))


@lru_cache(maxsize=4)
def folder_fingerprint(pretrained: str | None) -> str:
    """Hash names, sizes and times of a local model's files; empty for a hub name."""
    folder = Path(pretrained or "")
    if not pretrained or not folder.is_dir():
        return ""
    stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.rglob("*"))]
    return hashlib.sha256(repr(stats).encode()).hexdigest()


def load_language_model(spec: ModelSpec) -> LanguageModel:
    """Load network and tokenizer; `spec` must be resolved."""
    device, dtype = _device(spec.device), DTYPES[spec.dtype]
    notes = (f"{spec.dtype} on {device}",)
    if spec.pretrained == "tiny-random":
        network, tokenizer = tiny_random(spec.seed)
        return LanguageModel(spec.name, network.to(device, dtype), tokenizer, notes)
    source = spec.pretrained
    if spec.package is not None:
        source = str(packaged_model(spec.package))
    if not source:
        raise SettingError(
            "model.pretrained is not set: name a hub model or a local folder, "
            "or choose model=smollm2-135m, which comes from a package."
        )
    network, tokenizer = _from_pretrained(spec, source, dtype)
    if spec.device_map is None:
        network = network.to(device)
    return LanguageModel(spec.name, network, tokenizer, notes)


def _from_pretrained(spec: ModelSpec, source: str, dtype: torch.dtype) -> tuple:
    common = {"trust_remote_code": spec.trust_remote_code}
    if not Path(source).is_dir():
        common["revision"] = spec.revision
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # it draws even where nobody looks
    try:
        config = AutoConfig.from_pretrained(source, **common)
        family_of(config)
        network = AutoModelForCausalLM.from_pretrained(
            source, config=config, dtype=dtype, device_map=spec.device_map, **common
        )
        tokenizer = AutoTokenizer.from_pretrained(spec.tokenizer or source, **common)
    except (OSError, ValueError) as error:
        if isinstance(error, SettingError):
            raise
        raise _load_error(spec, source, error) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    return network, tokenizer


def _load_error(spec: ModelSpec, source: str, error: Exception) -> SettingError:
    """Say what to set instead of a model that did not load."""
    text = f"{type(error).__name__} {error}".lower()
    if "gated" in text or "401" in text or "403" in text:
        cause = "the model is gated: accept its licence on the hub and set HF_TOKEN"
    elif Path(source).exists() or source.startswith((".", "/", "~")):
        first = str(error).strip().splitlines()[0]
        cause = f"the folder does not load ({first[:160]})"
    else:
        cause = "the hub was not reached or has no such model (HF_TOKEN is needed for private ones)"
    return SettingError(
        f"model.pretrained={spec.pretrained}: {cause}; "
        "or set model.pretrained to a local folder, or model=smollm2-135m, which needs no hub."
    )


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise SettingError(
                f"model.device={name}: not usable here ({str(error).splitlines()[0][:80]}); "
                "choose auto or cpu."
            ) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(name: str, device: torch.device) -> str:
    """Pick the fastest type that is safe; float16 never by itself: large strengths overflow it."""
    if name != "auto":
        if name not in DTYPES:
            raise SettingError(f"model.dtype={name}: choose auto, {', '.join(DTYPES)}.")
        return name
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # oneDNN multiplies bfloat16 in AMX tiles or AVX-512, 3-4 times faster than float32;
        # elsewhere it would be emulated and slow.
        fast = device.type == "cpu" and (
            torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        )
    return "bfloat16" if fast else "float32"
