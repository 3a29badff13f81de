"""Answer every request of lm-eval's catalogue in one cell, as its own `hf` model would.

A prompt that is too long loses its beginning: the last prompt token, where a method steers, stays.

    context of 6 tokens     prompt . . . . . . . answer . .
    fed to the model              [. . . . . . .        .] .    the last token is never fed
"""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from jinja2.exceptions import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs

from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.scoring.bridge import MAX_NEW_TOKENS, SteeredLM
from sadi_bench.scoring.writing import GenerationRequest
from sadi_bench.steering.intervention import UNSTEERED_MODEL, AnswerBias, Intervention

log = logging.getLogger("sadi_bench")
HEEDED = ("until", "max_gen_toks", "do_sample")
WITHOUT_EFFECT = {"temperature": None, "top_p": None, "top_k": None, "num_beams": 1,
                  "repetition_penalty": 1.0, "length_penalty": None, "use_cache": True}  # fmt: skip
"""Settings that leave a greedy text alone, at this value or (None) at any."""

Asked = tuple[tuple[str, str], list[int], list[int]]
"""What lm-eval hands over to be scored: context and answer as text, and the tokens of each."""


class OneCellLM(SteeredLM):
    """Answer for one cell of an intervention; no other steered cell is computed.

    `counts` says how many requests were cut, and how many overflowed.
    """

    def __init__(
        self,
        lm: LanguageModel,
        intervention: Intervention,
        cell: int,
        token_budget: int | None = None,
    ) -> None:
        """Take the unsteered model alone for cell 0, else the cell beside it."""
        alone = intervention.only(cell) if cell else UNSTEERED_MODEL
        place = len(alone.cells) - 1
        super().__init__(lm, alone, token_budget=token_budget, cell=place, writing_cells=[place])
        self.counts: Counter[str] = Counter()

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the tokenizer's template, for lm-eval's results.

        Raises:
            SettingError: it has none.
        """
        if chat_template and self.tokenizer.chat_template is None:
            raise SettingError(
                f"--apply_chat_template: the tokenizer of {self.lm.name} has no chat template; "
                "leave it out, or choose a model that has one."
            )
        return super().chat_template(chat_template)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render a chat; without its system messages where the template takes none."""
        try:
            return super().apply_chat_template(chat_history, add_generation_prompt)
        except TemplateError:
            rest = [message for message in chat_history if message["role"] != "system"]
            return super().apply_chat_template(rest, add_generation_prompt)

    def _loglikelihood_tokens(
        self, requests: list[Asked], **options: Any
    ) -> list[tuple[float, bool]]:
        before = self.counts.copy()
        kept = [(texts, self._cut(prompt, answer), answer) for texts, prompt, answer in requests]
        found = super()._loglikelihood_tokens(kept, **options)
        lost = sum(not self.all_cells(texts).finite[self.cell] for texts, *_ in requests)
        self.counts["overflowed"] += int(lost)
        self._say(before, len(requests))
        return found

    def _cut(self, prompt: list[int], answer: list[int]) -> list[int]:
        """Cut a prompt from the left to what fits before its answer, whose last token is not fed.

        Raises:
            SettingError: the answer alone fills the context.
        """
        room = self.max_length + 1 - len(answer)
        if room < 1:
            raise SettingError(
                f"model {self.lm.name}: an answer has {len(answer):,} tokens, the context "
                f"{self.max_length:,}; choose a model with a longer context."
            )
        return self._last(prompt, room)

    def _last(self, prompt: list[int], room: int) -> list[int]:
        self.counts["cut"] += len(prompt) > room
        return prompt[-room:]

    def loglikelihood_rolling(
        self,
        requests: list[Instance],
        disable_tqdm: bool = False,  # noqa: ARG002
    ) -> list[float]:
        """Refuse: a text without a prompt has no last prompt token to steer at."""
        raise SettingError(
            f"--tasks {requests[0].task_name}: it asks for loglikelihood_rolling, and a text "
            "without a prompt has no last prompt token to steer at; choose a task with prompts, or "
            "--model hf for the unsteered model."
        )

    def generate_until(
        self,
        requests: list[Instance],
        disable_tqdm: bool = False,  # noqa: ARG002
    ) -> list[str]:
        """Return what the cell writes behind every context, greedily."""
        if isinstance(self.intervention, AnswerBias):
            raise SettingError(
                f"--tasks {requests[0].task_name}: the model writes its answers, and a constant an "
                "answer changes no text; choose another method than calibrate, or cell=0."
            )
        penalty = getattr(self.lm.network.generation_config, "repetition_penalty", None)
        if penalty not in (None, 1):
            log.warning(
                f"{self.lm.name}: its generation_config has repetition_penalty={penalty}, which hf "
                "heeds; here texts are plain greedy ones"
            )
        before = self.counts.copy()
        found = [text[self.cell] for text in self.texts([r.args for r in requests])]
        self.counts["overflowed"] += sum(not text.finite for text in found)
        self._say(before, len(requests))
        return [text.text for text in found]

    def _generation_request(self, context: str, kwargs: Mapping[str, Any]) -> GenerationRequest:
        settings = normalize_gen_kwargs(dict(kwargs), MAX_NEW_TOKENS)
        _check_greedy(settings)
        most = settings["max_gen_toks"]
        if not 1 <= most < self.max_length:
            raise SettingError(
                f"--gen_kwargs max_gen_toks={most}: the context of {self.lm.name} has "
                f"{self.max_length:,} tokens; choose 1 to {self.max_length - 1:,}."
            )
        prompt = self.lm.encode(context) or [self.prefix_token_id]
        end = self.tokenizer.decode(self.eot_token_id)
        until = dict.fromkeys((*settings["until"], end))
        return GenerationRequest(
            tuple(self._last(prompt, self.max_length - most)), most, tuple(until)
        )

    def _say(self, before: Counter[str], asked: int) -> None:
        """Say once for all requests of a kind what a reader of the numbers must know."""
        if cut := self.counts["cut"] - before["cut"]:
            log.warning(
                f"{cut:,} of {asked:,} prompts are longer than the context of "
                f"{self.max_length:,} tokens and lost their beginning, as in lm-eval's hf"
            )
        if lost := self.counts["overflowed"] - before["overflowed"]:
            log.warning(
                f"{lost:,} of {asked:,} requests overflowed in this cell: their log-probability is "
                "-inf, their text empty, and lm-eval counts them all the same"
            )


def _check_greedy(settings: Mapping[str, Any]) -> None:
    """Refuse what would make another text than the greedy one.

    Raises:
        SettingError: it asks for sampling, or has a setting that is not heeded here.
    """
    if settings["do_sample"]:
        raise SettingError(
            f"--gen_kwargs do_sample={settings['do_sample']}, "
            f"temperature={settings.get('temperature', 0.0)}: asks for sampling, and texts are "
            "written greedily here; set do_sample=False,temperature=0."
        )
    for name, value in settings.items():
        harmless = name in WITHOUT_EFFECT and WITHOUT_EFFECT[name] in (None, value)
        if name not in HEEDED and not harmless:
            raise SettingError(
                f"--gen_kwargs {name}={value}: not heeded here, where texts are written greedily; "
                f"leave it out (heeded: {', '.join(HEEDED)})."
            )
