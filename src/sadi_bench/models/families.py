"""Where each architecture keeps its attention heads, FFN neurons and hidden states.

A new family is one entry in `FAMILIES`; tests/models run every test of the engine on it.
"""

from dataclasses import dataclass, replace
from enum import Enum

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from sadi_bench import plugins
from sadi_bench.errors import SettingError


class Site(str, Enum):
    """Name the activation that is read and edited in every decoder block.

    head: input of the attention's output projection, split by query head.
    neuron: output of the FFN's non-linearity (gated FFN: act(gate), before it meets `up`).
    hidden: output of the FFN block, before the residual sum.
    residual: output of the decoder block.
    """

    head = "head"
    neuron = "neuron"
    hidden = "hidden"
    residual = "residual"


@dataclass(frozen=True)
class HookPoint:
    """Point at the input or the output of a module, by its path inside a decoder block.

    `producer` is the module whose input feeds this point and nothing else in the block: where the
    point's values are overwritten, that work is idle. None if there is no such module.
    """

    module: str
    side: str = "output"
    producer: str | None = None


@dataclass(frozen=True)
class Family:
    """Describe one architecture as data.

    `tuple_blocks`: the decoder block returns a tuple whose first item is the hidden state.
    `masks`: "one" 4-D mask for all layers, one "per_layer_type", or "alibi" (takes none).
    `logits_times`, `logits_over`: fields of the config that logits are multiplied, divided by.
    """

    blocks: str
    head: HookPoint
    neuron: HookPoint
    hidden: HookPoint
    residual: HookPoint = HookPoint("")
    tuple_blocks: bool = False
    masks: str = "one"
    logits_times: str | None = None
    logits_over: str | None = None


LLAMA = Family(
    blocks="model.layers",
    head=HookPoint("self_attn.o_proj", "input", producer="self_attn"),
    neuron=HookPoint("mlp.act_fn", producer="mlp.gate_proj"),
    hidden=HookPoint("mlp", producer="mlp"),
)
TYPED_LLAMA = replace(LLAMA, masks="per_layer_type")
PHI3 = replace(LLAMA, neuron=HookPoint("mlp.activation_fn"))  # gate and up are one projection
PHI = replace(
    LLAMA,
    head=HookPoint("self_attn.dense", "input", producer="self_attn"),
    neuron=HookPoint("mlp.activation_fn", producer="mlp.fc1"),
)
# A field's name does not tell the direction: HyperCLOVA X multiplies by its `logits_scaling`.
GRANITE = replace(LLAMA, logits_over="logits_scaling")
COHERE = replace(LLAMA, logits_times="logit_scale")
FALCON = Family(
    blocks="transformer.h",
    head=HookPoint("self_attention.dense", "input", producer="self_attention"),
    neuron=HookPoint("mlp.act", producer="mlp.dense_h_to_4h"),
    hidden=HookPoint("mlp", producer="mlp"),
    tuple_blocks=True,
)
# BLOOM's FFN adds the residual itself, so its output proper is that of the last projection.
BLOOM = replace(
    FALCON,
    neuron=HookPoint("mlp.gelu_impl", producer="mlp.dense_h_to_4h"),
    hidden=HookPoint("mlp.dense_4h_to_h", producer="mlp.dense_h_to_4h"),
    masks="alibi",
)
GPT_NEOX = Family(
    blocks="gpt_neox.layers",
    head=HookPoint("attention.dense", "input", producer="attention"),
    neuron=HookPoint("mlp.act", producer="mlp.dense_h_to_4h"),
    hidden=HookPoint("mlp", producer="mlp"),
)
OPT = Family(
    blocks="model.decoder.layers",
    head=HookPoint("self_attn.out_proj", "input", producer="self_attn"),
    neuron=HookPoint("activation_fn", producer="fc1"),
    hidden=HookPoint("fc2", producer="fc1"),
)
GPT2 = Family(
    blocks="transformer.h",
    head=HookPoint("attn.c_proj", "input", producer="attn"),
    neuron=HookPoint("mlp.act", producer="mlp.c_fc"),
    hidden=HookPoint("mlp", producer="mlp"),
)

FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": TYPED_LLAMA,
    "qwen3": TYPED_LLAMA,
    "gemma2": TYPED_LLAMA,
    "gemma3_text": TYPED_LLAMA,
    "granite": GRANITE,
    "cohere": COHERE,
    "phi": PHI,
    "phi3": PHI3,
    "falcon": FALCON,
    "bloom": BLOOM,
    "gpt_neox": GPT_NEOX,
    "opt": OPT,
    "gpt2": GPT2,
}


def family_of(config: PretrainedConfig) -> Family:
    """Look up the family of a model's config; refuse an unknown one rather than guess."""
    name = config.model_type
    added = plugins.plugins(plugins.FAMILIES, FAMILIES)
    if name not in FAMILIES and name not in added:
        raise SettingError(
            f"model.pretrained={config.name_or_path}: model type '{name}' has no family (known: "
            f"{', '.join(sorted({*FAMILIES, *added}))}). Choose a model of these types, or add one "
            "entry to FAMILIES in sadi_bench/models/families.py, or in a package of your own."
        )
    family = FAMILIES[name] if name in FAMILIES else plugins.loaded(added[name])
    if config.model_type == "bloom" and config.pretraining_tp > 1 and config.slow_but_exact:
        raise SettingError(
            f"model.pretrained: its config has slow_but_exact with pretraining_tp="
            f"{config.pretraining_tp}, which goes past the modules that are steered; "
            "set slow_but_exact to false in its config.json."
        )
    if config.model_type == "falcon" and config.alibi:
        return replace(family, masks="alibi")
    return family


def blocks_of(network: PreTrainedModel, family: Family) -> list[nn.Module]:
    """List the decoder blocks, first to last."""
    return list(network.get_submodule(family.blocks))


def trunk_of(network: PreTrainedModel, family: Family) -> nn.Module:
    """Return the module that runs the decoder blocks, embeddings first; not always the backbone."""
    return network.get_submodule(family.blocks.rpartition(".")[0])
