"""Tiny random models of every family: three layers, 128 tokens, float32, ready on a CPU."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

SPECIAL = {"vocab_size": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
UNTIED = {"tie_word_embeddings": False}  # a tied random head mostly repeats its input token
NARROW = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4}
COMMON = {**SPECIAL, **UNTIED, **NARROW, "initializer_range": 0.2}
GATED = {**COMMON, "intermediate_size": 48, "max_position_embeddings": 512}
GROUPED = {**GATED, "num_key_value_heads": 2}  # two query heads share one key-value head
WIDE_HEADS = {**GROUPED, "head_dim": 12}  # 4 heads x 12 = 48, not the hidden size of 32
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
GEMMA = {**WIDE_HEADS, "query_pre_attn_scalar": 12, "sliding_window": 16, "layer_types": MIXED}
FALCON = {**COMMON, "max_position_embeddings": 512}
NO_DROPOUT_GPT2 = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
GRANITE_SCALES = {"logits_scaling": 2.0, "embedding_multiplier": 1.5,
                  "residual_multiplier": 0.5, "attention_multiplier": 0.3}  # fmt: skip
OPT_SIZES = {"ffn_dim": 48, "max_position_embeddings": 512, "dropout": 0.0, "init_std": 0.2}

# name: (model type, settings); bloom and gemma2 (soft-capped scores) have no SDPA attention
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", GROUPED),
    "mistral": ("mistral", {**GROUPED, "sliding_window": None}),
    "mistral_window": ("mistral", {**GROUPED, "sliding_window": 16}),
    "qwen2": ("qwen2", GROUPED),
    "qwen3": ("qwen3", WIDE_HEADS),
    "gemma2": ("gemma2", GEMMA),
    "gemma3": ("gemma3_text", GEMMA),
    "falcon_new": ("falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_rotary": ("falcon", {**FALCON, "multi_query": True, "alibi": False}),
    "falcon_alibi": ("falcon", {**FALCON, "multi_query": True, "alibi": True}),
    "bloom": ("bloom", COMMON),
    "gpt_neox": ("gpt_neox", GATED),
    "opt": ("opt", {**SPECIAL, **UNTIED, **NARROW, **OPT_SIZES}),
    "gpt2": ("gpt2", {**COMMON, **NO_DROPOUT_GPT2, "max_position_embeddings": 512}),
    "granite": ("granite", {**GROUPED, **GRANITE_SCALES}),
    "cohere": ("cohere", {**GROUPED, "logit_scale": 0.5, "use_qk_norm": True}),
    "phi": ("phi", GROUPED),
    "phi3": ("phi3", {**GROUPED, "sliding_window": None}),
}
EAGER_ONLY = {"bloom", "gemma2"}


def build(name: str, seed: int = 0) -> PreTrainedModel:
    """Build one tiny model; the global random state is left as it was."""
    model_type, settings = SETTINGS[name]
    attention = "eager" if name in EAGER_ONLY else "sdpa"
    config = AutoConfig.for_model(model_type, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            config, attn_implementation=attention, dtype=torch.float32
        )
    return model.eval()


TINY: dict[str, Callable[[], PreTrainedModel]] = {name: partial(build, name) for name in SETTINGS}
