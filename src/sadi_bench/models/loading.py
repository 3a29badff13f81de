"""Load a language model: from the hub, a folder, a package, or made in memory."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from sadi_bench.downloads.hub import hub_answers
from sadi_bench.errors import SettingError
from sadi_bench.models.families import family_of
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.load_errors import load_errors, memory_errors
from sadi_bench.models.packaged import packaged_model
from sadi_bench.models.self_test import self_tested
from sadi_bench.models.spec import ModelSpec
from sadi_bench.models.tiny_random import tiny_random

TINY_RANDOM = "tiny-random"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolved(spec: ModelSpec) -> ModelSpec:
    """Replace `auto` and null by what is run, so that a run's config says it.

    `pretrained`, if given, takes the place of the config's package.
    """
    device, package, pretrained = _device(spec.device), spec.package, spec.pretrained
    if pretrained:
        package = None
        folder = Path(pretrained).expanduser()
        if folder.exists():
            pretrained = str(folder)
    elif package is None:
        raise SettingError(
            "model.pretrained is not set: name a local folder or a hub model, or choose "
            "model=smollm2-135m, which needs neither."
        )
    return replace(
        spec,
        name=spec.name or (package.name if package else Path(pretrained).resolve().name),
        pretrained=pretrained,
        package=package,
        device=str(device),
        dtype=_dtype(spec.dtype, device),
    )


def folder_fingerprint(pretrained: str | None) -> str:
    """Hash names, sizes and times of a local model's files; empty for a hub name."""
    folder = Path(pretrained or "")
    if not pretrained or not folder.is_dir():
        return ""
    stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.rglob("*"))]
    return hashlib.sha256(repr(stats).encode()).hexdigest()


class Models:
    """Hold the last model that was loaded: the runs of a sweep share it.

    It leaves before another comes in, so that two are never in memory at once.
    """

    def __init__(self) -> None:
        self._held: dict[str, LanguageModel] = {}

    def load(self, spec: ModelSpec) -> LanguageModel:
        """Load network and tokenizer, or return the held ones; `auto` is resolved."""
        spec = resolved(spec)
        fingerprint = fingerprint_of(spec)
        if fingerprint not in self._held:
            self._held.clear()
            self._held[fingerprint] = _load(spec, fingerprint)
        return self._held[fingerprint]

    def forget(self, lm: LanguageModel) -> None:
        """Free a model's weights, whoever still holds it."""
        for kept in [key for key, found in self._held.items() if found.network is lm.network]:
            del self._held[kept]
        free(lm)

    def clear(self) -> None:
        """Let go of the held model; it leaves memory when nobody else holds it."""
        self._held.clear()


def load_language_model(spec: ModelSpec, setting: str | None = None) -> LanguageModel:
    """Load network and tokenizer; `auto` is resolved, and errors name `setting`."""
    spec = resolved(spec)
    return _load(spec, fingerprint_of(spec), setting)


def free(lm: LanguageModel) -> None:
    """Free a model's weights, even while others still hold it; they cannot run it then."""
    for parameter in lm.network.parameters():
        parameter.grad = None
        parameter.data = parameter.data.new_empty(0)


def fingerprint_of(spec: ModelSpec) -> str:
    """Name the weights that a resolved model is loaded with, but for a hub model's commit."""
    return repr(spec) + folder_fingerprint(spec.pretrained)


@contextmanager
def beside(spec: ModelSpec, setting: str | None = None) -> Iterator[LanguageModel]:
    """Hold a second model beside others and free it at the end; `setting` named it."""
    second = load_language_model(spec, setting)
    try:
        yield second
    finally:
        free(second)


def _load(spec: ModelSpec, fingerprint: str, setting: str | None = None) -> LanguageModel:
    device, dtype = _device(spec.device), DTYPES[spec.dtype]
    notes = (f"{spec.dtype} on {device}",)
    if spec.pretrained == TINY_RANDOM:
        network, tokenizer = tiny_random(spec.seed)
        network = network.to(dtype)
    else:
        source = str(packaged_model(spec.package)) if spec.package else str(spec.pretrained)
        own = setting or ("model.package" if spec.package else "model.pretrained")
        network, tokenizer = _from_pretrained(spec, source, dtype, own)
    check_chat(spec, tokenizer)
    if spec.device_map is None:
        with memory_errors(spec):
            network = network.to(device)
    if family_of(network.config).masks == "alibi":
        notes += (f"{network.config.model_type} takes no 4-D mask: cells run in rows, not packed",)
    commit = getattr(network.config, "_commit_hash", None) or ""  # of a hub model
    lm = LanguageModel(
        str(spec.name),
        network,
        tokenizer,
        notes,
        fingerprint + commit,
        source=spec.package.requirement if spec.package else str(spec.pretrained),
        revision=commit,
        chat=spec.chat_template,
        spec=spec,
    )
    with memory_errors(spec):
        return self_tested(lm, setting or "model")


def check_chat(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse to wrap prompts in a chat template that the tokenizer does not have."""
    if spec.chat_template and tokenizer.chat_template is None:
        raise SettingError(
            f"model.chat_template=true: the tokenizer of {spec.name} has no chat template; set it "
            "to false, or model.tokenizer to one that has."
        )


def _from_pretrained(spec: ModelSpec, source: str, dtype: torch.dtype, own: str) -> tuple:
    common = {"trust_remote_code": spec.trust_remote_code}
    with quiet_transformers(), memory_errors(spec), load_errors(own, source):
        where = common | hub_options(source, spec.revision)
        config = AutoConfig.from_pretrained(source, **where)
        family_of(config)
        network = AutoModelForCausalLM.from_pretrained(
            source, config=config, dtype=dtype, device_map=spec.device_map, **where
        )
    tokenizer = spec.tokenizer or source
    with load_errors("model.tokenizer" if spec.tokenizer else own, tokenizer):
        if spec.tokenizer:
            where = common | hub_options(tokenizer, "main")
        return network, AutoTokenizer.from_pretrained(tokenizer, **where)


def hub_options(source: str, revision: str) -> dict[str, Any]:
    """Keep the hub's client from minutes of retries where the hub does not answer."""
    if Path(source).exists():
        return {}
    if source.startswith((".", "/", "~")):
        raise FileNotFoundError("no such folder")
    return {"revision": revision, "local_files_only": not hub_answers()}


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Draw no progress bar: transformers draws it even where nobody looks."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
            torch.zeros(1, device=device).item()  # `meta` is a device, but holds nothing
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
