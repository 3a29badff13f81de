"""Where an intervention comes from: its method, its model, what chose its cells."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from transformers import PreTrainedModel

from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel, weights_digest
from sadi_bench.provenance import library_versions

MODEL_FACTS = {"name": str, "source": str, "revision": str, "digest": str, "model_type": str,
               "dtype": str, "layers": int, "heads": int, "widths": dict}  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """Say which method made an intervention of which model.

    `method` has its kind, name and settings; `model` the facts of `model_facts`; `template` is the
    digest of the chat template that wrapped the prompts, "" where none did. `chosen` names cells: a
    row of the report ("heldout") → its cell. `versions` are of the libraries that learnt it.
    """

    method: Mapping[str, Any]
    model: Mapping[str, Any]
    task: str = ""
    template: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    chosen: Mapping[str, int] = field(default_factory=dict)


def origin_of(lm: LanguageModel, method: Mapping[str, Any], task: str = "") -> Origin:
    """Describe what is being learnt from a model by a method, given as in its YAML."""
    versions = {"sadi_bench": version("sadi-bench"), **library_versions()}
    versions["safetensors"] = version("safetensors")
    return Origin(dict(method), model_facts(lm), task, template_digest(lm), versions)


def model_facts(lm: LanguageModel) -> dict[str, Any]:
    """Return what tells one model from another: name, source, digest of its weights, and shape."""
    config = lm.network.config
    return {
        "name": lm.name,
        "source": lm.source or config._name_or_path or lm.name,
        "revision": lm.revision or "",
        "digest": lm.digest,
        **_shape(lm.network),
        "dtype": str(lm.dtype).removeprefix("torch."),
        "widths": {site.value: lm.widths[site] for site in Site},
    }


def template_digest(lm: LanguageModel) -> str:
    """Hash the chat template that prompts are wrapped in; "" where they are not."""
    if not lm.chat:
        return ""
    return hashlib.sha256(str(lm.tokenizer.chat_template).encode()).hexdigest()[:16]


def check_model(origin: Origin | None, lm: LanguageModel) -> None:
    """Refuse a model that the steering was not learnt from: its numbers would mean nothing.

    Raises:
        SettingError: the shapes or the weights differ.
    """
    if origin is not None:
        _check(origin.model, _shape(lm.network) | {"digest": lm.digest}, lm.name)


def check_network(origin: Origin | None, network: PreTrainedModel) -> None:
    """Do what `check_model` does for a network without its tokenizer."""
    if origin is not None:
        name = network.config._name_or_path or type(network).__name__
        _check(origin.model, _shape(network) | {"digest": weights_digest(network)}, name)


def _check(its: Mapping[str, Any], own: Mapping[str, Any], name: str) -> None:
    for fact, value in own.items():
        if value != its[fact]:
            raise SettingError(
                f"steering: it was learnt from {its['name']} ({fact} {str(its[fact])[:16]}), and "
                f"{name} has {fact} {str(value)[:16]}; load the model {its['source']}, or fit the "
                "method anew."
            )


def _shape(network: PreTrainedModel) -> dict[str, Any]:
    config = network.config
    return {
        "model_type": config.model_type,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
    }


def template_note(origin: Origin | None, lm: LanguageModel) -> tuple[str, ...]:
    """Say so where prompts are wrapped otherwise than those that the steering was learnt from."""
    if origin is None or template_digest(lm) == origin.template:
        return ()
    learnt = "with a chat template" if origin.template else "without a chat template"
    return (f"steering learnt from prompts {learnt}, used on prompts wrapped otherwise",)
