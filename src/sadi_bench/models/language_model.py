"""A causal language model with its tokenizer and its family, ready to be read and steered."""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sadi_bench.batches.executor import Executor
from sadi_bench.errors import SettingError
from sadi_bench.models.families import Family, Site, family_of
from sadi_bench.models.hooks import edited
from sadi_bench.models.shapes import Float
from sadi_bench.models.spec import ModelSpec

FALLBACK_MAX_LENGTH = 2048  # lm-eval's, for models that state none
SAMPLED = 4096  # weights of a tensor that the digest reads, about


def weights_digest(network: nn.Module) -> str:
    """Hash names, shapes and a sample of the weights, rounded to bfloat16.

    So it is the same in float32 and bfloat16, on every device, and other for another model or one
    that was trained on. (float16 rounds otherwise, and may have a digest of its own.)
    """
    digest = hashlib.sha256()
    for name, weights in sorted(network.state_dict().items()):
        flat = weights.detach().flatten()
        chosen = flat[:: max(1, len(flat) // SAMPLED)].to(torch.bfloat16).view(torch.int16)
        digest.update(f"{name} {tuple(weights.shape)}".encode())
        digest.update(chosen.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class EncodedPair:
    """Hold one answer behind its prompt; `merged`: a token straddles the boundary."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    merged: bool


@dataclass(frozen=True)
class LanguageModel:
    """Hold a network in evaluation mode and what the engine must know of it.

    `fingerprint` names the weights; empty where they were made by hand. `finetune` says how they
    were fine-tuned here; None where they were not. `source` and `revision` are where they were
    loaded from. `chat`: prompts are wrapped in the tokenizer's chat template. `spec` loads it
    again, elsewhere too; None where it was made by hand. `executor` runs its batches.
    """

    name: str
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    finetune: Mapping[str, Any] | None = None
    source: str = ""
    revision: str = ""
    chat: bool = False
    spec: ModelSpec | None = field(default=None, compare=False)
    executor: Executor = field(default_factory=Executor, compare=False)

    def __post_init__(self) -> None:
        family_of(self.network.config)  # refuses an unknown architecture
        self.network.eval()

    @cached_property
    def family(self) -> Family:
        """What differs between architectures."""
        return family_of(self.network.config)

    @cached_property
    def digest(self) -> str:
        """The digest of the weights, see `weights_digest`."""
        return weights_digest(self.network)

    @property
    def backbone(self) -> nn.Module:
        """The network without its output layer."""
        return self.network.base_model

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return self.network.get_input_embeddings().weight.device

    @property
    def planned_for(self) -> str:
        """The type of device that batches are planned for: that of the workers, if it has any."""
        return torch.device(self.spec.device).type if self.spec else self.device.type

    def place(self, tensor: Tensor) -> Tensor:
        """Move a tensor to where token ids go; a GPU is not waited for."""
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    @property
    def dtype(self) -> torch.dtype:
        """The type that activations have."""
        return self.network.dtype

    @property
    def num_layers(self) -> int:
        """Number of decoder blocks."""
        return self.network.config.num_hidden_layers

    @property
    def num_heads(self) -> int:
        """Number of query heads of a block."""
        return self.network.config.num_attention_heads

    @property
    def packs(self) -> bool:
        """Whether the architecture takes a 4-D mask; if not, branches run in rows."""
        return self.family.masks != "alibi"

    @cached_property
    def takes_position_ids(self) -> bool:
        """Whether the backbone is told positions (alibi models count their mask instead)."""
        return "position_ids" in inspect.signature(self.backbone.forward).parameters

    @cached_property
    def max_length(self) -> int:
        """Longest sequence in tokens, found where lm-eval looks for it."""
        config = self.network.config
        for name in ("max_position_embeddings", "n_positions", "n_ctx"):
            if getattr(config, name, None):
                return int(getattr(config, name))
        limit = self.tokenizer.model_max_length
        return int(limit) if limit < 10**9 else FALLBACK_MAX_LENGTH

    def check_length(self, tokens: int) -> None:
        """Refuse to feed a prompt that does not fit: cut silently, it would be another prompt."""
        if tokens > self.max_length:
            raise SettingError(
                f"model {self.name}: a prompt with its answer has {tokens} tokens, the context "
                f"{self.max_length}; choose a model with a longer context, or fewer task.fewshot."
            )

    @cached_property
    def widths(self) -> dict[Site, int]:
        """Width of every site, read off one token's activations rather than guessed."""
        seen: dict[Site, int] = {}
        for site in Site:

            def note(_layer: int, values: Tensor, site: Site = site) -> None:
                seen[site] = values.shape[-1]

            with torch.inference_mode(), edited(self.network, self.family, site, note):
                self.backbone(input_ids=torch.zeros(1, 1, dtype=torch.long, device=self.device))
        return seen

    def num_elements(self, site: Site) -> int:
        """Count the elements of one layer: query heads, FFN units or coordinates."""
        return self.num_heads if site == Site.head else self.widths[site]

    def output_logits(self, hidden: Float[Tensor, "row width"]) -> Float[Tensor, "row vocab"]:
        """Turn final hidden states into logits, with the model's own scale and soft cap."""
        head, config = self.network.get_output_embeddings(), self.network.config
        logits = head(hidden.to(head.weight.device))
        if self.family.logits_times:
            logits = logits * getattr(config, self.family.logits_times)
        if self.family.logits_over:
            logits = logits / getattr(config, self.family.logits_over)
        cap = getattr(config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    @property
    def prefix_token(self) -> int:
        """What stands for an empty prompt: BOS, or else end-of-text, as in lm-eval's `hf`."""
        bos = self.tokenizer.bos_token_id
        return self.tokenizer.eos_token_id if bos is None else bos

    def encode(self, text: str, add_special_tokens: bool | None = None) -> list[int]:
        """Tokenise as lm-eval's `hf` model does: no second BOS where the text brings one."""
        bos = self.tokenizer.bos_token
        if add_special_tokens is None and bos and text.startswith(bos):
            add_special_tokens = False
        kwargs = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return self.tokenizer.encode(text, **kwargs)

    def render_chat(self, history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render a chat with the tokenizer's template (transformers runs it in a sandbox)."""
        return self.tokenizer.apply_chat_template(
            history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def encode_pair(self, prompt: str, answer: str, keep_newline: bool = False) -> EncodedPair:
        """Tokenise prompt and answer together and split them at the prompt's number of tokens.

        Trailing white space of the prompt goes to the answer, as in lm-eval; with `keep_newline`
        a trailing newline stays (arXiv 2410.12299's COPA prompt ends in one).
        """
        kept = prompt.rstrip(" \t") if keep_newline else prompt.rstrip()
        answer, prompt = prompt[len(kept) :] + answer, kept
        if prompt:
            whole, alone = self.encode(prompt + answer), self.encode(prompt)
        else:  # lm-eval's rule: the mark that opens a text stands for an empty prompt
            alone = [self.prefix_token]
            whole = alone + self.encode(answer, add_special_tokens=False)
        if len(whole) <= len(alone):
            fault = f"answer {answer!r} merges into the last token of {prompt[-30:]!r}"
            remedy = "every answer needs a token of its own"
            if not answer.strip():
                fault = f"empty answer {answer!r} behind {prompt[-30:]!r}"
                remedy = "give it at least one character that is not white space"
            raise SettingError(f"{fault}: no token is left to score; {remedy}.")
        merged = whole[: len(alone)] != alone
        return EncodedPair(tuple(alone), tuple(whole[len(alone) :]), merged)
