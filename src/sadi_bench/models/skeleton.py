"""A model without its weights: config, tokenizer, and a network of shapes alone."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from sadi_bench.models.families import family_of
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.load_errors import load_errors
from sadi_bench.models.loading import (
    DTYPES,
    TINY_RANDOM,
    check_chat,
    fingerprint_of,
    hub_options,
    quiet_transformers,
    resolved,
)
from sadi_bench.models.packaged import packaged_model
from sadi_bench.models.spec import ModelSpec
from sadi_bench.models.tiny_random import tiny_random

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files that hold weights, whole or (with `.index.json` behind the name) in parts."""


def skeleton(spec: ModelSpec) -> LanguageModel:
    """Load a model's config and tokenizer; its network is on the device `meta`, without weights.

    Of a hub model only small files are fetched; a model out of a package is unpacked first.
    Raises SettingError as loading it does.
    """
    spec = resolved(spec)
    if spec.pretrained == TINY_RANDOM:
        network, tokenizer = tiny_random(spec.seed)
        network = network.to(device="meta", dtype=DTYPES[spec.dtype])
    else:
        network, tokenizer = _shaped(spec)
    check_chat(spec, tokenizer)
    commit = getattr(network.config, "_commit_hash", None) or ""
    return LanguageModel(
        str(spec.name),
        network,
        tokenizer,
        fingerprint=fingerprint_of(spec) + commit,
        chat=spec.chat_template,
        spec=spec,
    )


def planned_on(lm: LanguageModel, device: str) -> LanguageModel:
    """Return a model whose batches are planned as for another type of device."""
    return replace(lm, spec=replace(lm.spec, device=device))


def weights_here(spec: ModelSpec) -> bool:
    """Say whether loading a resolved model would fetch nothing: all of its weights are here."""
    if spec.pretrained == TINY_RANDOM or spec.package:
        return True
    folder = _folder(str(spec.pretrained), spec.revision)
    return folder is not None and any(_whole(folder, name) for name in WEIGHTS)


def _shaped(spec: ModelSpec) -> tuple:
    source = str(packaged_model(spec.package)) if spec.package else str(spec.pretrained)
    own = "model.package" if spec.package else "model.pretrained"
    remote = {"trust_remote_code": spec.trust_remote_code}
    with quiet_transformers(), load_errors(own, source):
        where = remote | hub_options(source, spec.revision)
        config = AutoConfig.from_pretrained(source, **where)
        family_of(config)
        config.pad_token_id = None  # GPT-2 would look for it in ids that have no values
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(config, dtype=DTYPES[spec.dtype], **remote)
    tokenizer = spec.tokenizer or source
    with load_errors("model.tokenizer" if spec.tokenizer else own, tokenizer):
        if spec.tokenizer:
            where = remote | hub_options(tokenizer, "main")
        return network, AutoTokenizer.from_pretrained(tokenizer, **where)


def _folder(source: str, revision: str) -> Path | None:
    """Return the folder of a model's files: its own, or its snapshot in the hub's cache."""
    if Path(source).is_dir():
        return Path(source)
    try:
        config = try_to_load_from_cache(source, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def _whole(folder: Path, name: str) -> bool:
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return (folder / name).is_file()
    parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return all((folder / part).is_file() for part in parts)
