"""The bridge to lm-eval: it asks, we answer for one cell, it computes the metrics."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lm_eval
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import Task as HarnessTask

from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.scoring.choices import ChoiceRequest, score_choices
from sadi_bench.scoring.generation import Generated, GenerationRequest, generate
from sadi_bench.steering.intervention import UNSTEERED_MODEL, AnswerBias, Intervention
from sadi_bench.tasks.quiet import quiet_libraries

Tokens = tuple[int, ...]
MAX_NEW_TOKENS = 256  # lm-eval's, where a task does not say

CellScores = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Log-probability, greedy flag and finiteness of one answer in every cell, each [cell]."""

_UNSTEERED: dict[str, dict[tuple[Tokens, Tokens], CellScores]] = {}
"""Cell 0 of what the last model was asked: the unsteered run of a sweep need not ask again."""

_UNSTEERED_TEXTS: dict[str, dict[GenerationRequest, Generated]] = {}
"""And what cell 0 wrote."""


class SteeredLM(TemplateLM):
    """Answer lm-eval's requests for the cell named by `cell`.

    Requests not seen before are scored in all cells at once; the other cells then read the answer.
    """

    def __init__(
        self,
        lm: LanguageModel,
        intervention: Intervention = UNSTEERED_MODEL,
        *,
        chat: bool = False,
        keep_newline: bool = False,
        token_budget: int | None = None,
    ) -> None:
        super().__init__()
        self.lm, self.tokenizer = lm, lm.tokenizer
        self.chat, self.keep_newline, self.token_budget = chat, keep_newline, token_budget
        self.cell = 0
        self.writing_cells: Sequence[int] | None = None
        """Cells that write when a text is asked for; None is all."""
        self.merged: set[tuple[str, str]] = set()
        self._encoded: dict[tuple[str, str], tuple[Tokens, Tokens]] = {}
        self.intervention = intervention

    @property
    def intervention(self) -> Intervention:
        """What is scored; a new one forgets the scores of the old."""
        return self._intervention

    @intervention.setter
    def intervention(self, intervention: Intervention) -> None:
        self._intervention = intervention
        self._scores: dict[tuple[Tokens, Tokens], CellScores] = {}
        self._texts: dict[GenerationRequest, dict[int, Generated]] = {}
        self._biases: dict[Tokens, np.ndarray] | None = None
        for known in (_UNSTEERED, _UNSTEERED_TEXTS):
            if self.lm.fingerprint not in known:
                known.clear()
        if len(intervention.cells) == 1:
            self._scores.update(_UNSTEERED.get(self.lm.fingerprint, {}))
            texts = _UNSTEERED_TEXTS.get(self.lm.fingerprint, {})
            self._texts.update({request: {0: text} for request, text in texts.items()})

    @property
    def eot_token_id(self) -> int:
        """The tokenizer's end-of-text mark."""
        return self.lm.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands for an empty context."""
        return self.lm.prefix_token

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens."""
        return self.lm.max_length

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval writes into its results."""
        return self.lm.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Tokenise a text."""
        return self.lm.encode(string, add_special_tokens)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render a chat with the tokenizer's template (transformers runs it in a sandbox)."""
        return self.lm.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        pair = self.lm.encode_pair(context, continuation, self.keep_newline)
        if pair.merged:
            self.merged.add((context, continuation))
        return list(pair.prompt), list(pair.answer)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Tokenise and score; the bar is drawn only where somebody may look."""
        return super().loglikelihood(requests, disable_tqdm or not sys.stderr.isatty())

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = [(tuple(context), tuple(answer)) for _, context, answer in requests]
        for (texts, _, _), tokens in zip(requests, pairs, strict=True):
            self._encoded[texts] = tokens
        self._score([pair for pair in pairs if pair not in self._scores])
        return [self._answer(pair) for pair in pairs]

    def _score(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> None:
        answers: dict[Tokens, dict[Tokens, None]] = {}
        for context, answer in pairs:
            answers.setdefault(context, {})[answer] = None
        requests = [ChoiceRequest(context, tuple(found)) for context, found in answers.items()]
        if not requests:
            return
        if isinstance(self.intervention, AnswerBias) and self._biases is None:
            self._biases = self._learn_biases(self.intervention)
        scores = score_choices(self.lm, requests, self.intervention, self.token_budget)
        for request, score in zip(requests, scores, strict=True):
            for answer, logprobs, greedy in zip(
                request.answers, score.logprobs, score.greedy, strict=True
            ):
                if self._biases is not None:
                    logprobs = logprobs + self._bias_of(answer)
                self._scores[request.prompt, answer] = (logprobs, greedy, score.finite)
        if self.lm.fingerprint:
            known = _UNSTEERED.setdefault(self.lm.fingerprint, {})
            for pair, (logprobs, greedy, finite) in self._scores.items():
                known[pair] = (logprobs[:1], greedy[:1], finite[:1])

    def _learn_biases(self, intervention: AnswerBias) -> dict[Tokens, np.ndarray]:
        """Ask the unsteered model what the intervention wants to know."""
        requests = [ChoiceRequest(prompt, intervention.answers) for prompt in intervention.prompts]
        scores = score_choices(self.lm, requests, UNSTEERED_MODEL, self.token_budget)
        biases = intervention.biases(np.stack([score.logprobs[:, 0] for score in scores]))
        return dict(zip(intervention.answers, biases.astype(np.float32), strict=True))

    def _bias_of(self, answer: Tokens) -> np.ndarray:
        if answer not in self._biases:
            text = self.lm.tokenizer.decode(answer)
            raise SettingError(
                f"method=calibrate: no constant was learnt for the answer {text!r}, which no pair "
                "has; choose more task.n_pairs, or a task whose choices are always the same."
            )
        return self._biases[answer]

    def _answer(self, pair: tuple) -> tuple[float, bool]:
        logprobs, greedy, _ = self._scores[pair]
        return float(logprobs[self.cell]), bool(greedy[self.cell])

    def all_cells(self, args: tuple[str, str]) -> CellScores:
        """Return an answer's scores in every cell."""
        return self._scores[self._encoded[args]]

    def tokens(self, args: tuple[str, str]) -> tuple[Tokens, Tokens]:
        """Return the tokens of a prompt and an answer that were scored."""
        return self._encoded[args]

    def loglikelihood_rolling(
        self,
        requests: list[Instance],
        disable_tqdm: bool = False,  # noqa: ARG002
    ) -> list[float]:
        """Refuse: a text without a prompt has no last prompt token to steer at."""
        raise _no_prompt(requests)

    def generate_until(
        self,
        requests: list[Instance],
        disable_tqdm: bool = False,  # noqa: ARG002
    ) -> list[str]:
        """Return what the cell writes behind every context, greedily."""
        return [found[self.cell].text for found in self.texts([r.args for r in requests])]

    def texts(
        self, asked: Sequence[tuple[str, Mapping[str, Any]]], cells: Sequence[int] | None = None
    ) -> list[dict[int, Generated]]:
        """Return what `cells` (else `writing_cells`, else all) write; what is known is not redone.

        `asked` are contexts with lm-eval's generation_kwargs.
        """
        cells = cells or self.writing_cells or range(len(self.intervention.cells))
        requests = [self._generation_request(*args) for args in asked]
        todo: dict[tuple[int, ...], list[GenerationRequest]] = {}
        for request in dict.fromkeys(requests):
            known = self._texts.setdefault(request, {})
            if missing := tuple(cell for cell in cells if cell not in known):
                todo.setdefault(missing, []).append(request)
        for missing, some in todo.items():
            found = generate(self.lm, some, self.intervention, missing, self.token_budget)
            for request, written in zip(some, found, strict=True):
                self._texts[request].update(written)
        if self.lm.fingerprint:
            known = _UNSTEERED_TEXTS.setdefault(self.lm.fingerprint, {})
            known.update({r: found[0] for r, found in self._texts.items() if 0 in found})
        return [self._texts[request] for request in requests]

    def _generation_request(self, context: str, kwargs: Mapping[str, Any]) -> GenerationRequest:
        if kwargs.get("do_sample") or kwargs.get("temperature"):
            raise SettingError(
                "task.generation_kwargs: asks for sampling; texts are written greedily here, so "
                "set do_sample=false and leave temperature out."
            )
        until = kwargs.get("until") or ()
        until = (until,) if isinstance(until, str) else tuple(until)
        most = int(kwargs.get("max_gen_toks", MAX_NEW_TOKENS))
        if most < 1:
            raise SettingError(f"task.generation_kwargs.max_gen_toks={most}: choose at least 1.")
        return GenerationRequest(self.text_tokens(context), most, until)

    def text_tokens(self, context: str) -> Tokens:
        """Return the tokens of a context that a text is written behind."""
        return tuple(self.lm.encode(context))


def _no_prompt(requests: list[Instance]) -> SettingError:
    return SettingError(
        f"task.name={requests[0].task_name}: its requests are of type "
        f"{requests[0].request_type}; choose a multiple-choice task."
    )


def evaluate_cell(steered: SteeredLM, tasks: Mapping[str, HarnessTask], cell: int) -> dict:
    """Run lm-eval's own evaluation for one cell; requests are built by the first call only."""
    steered.cell = cell
    with quiet_libraries():
        results = lm_eval.evaluate(
            steered,
            {"tasks": dict(tasks), "groups": {}, "group_map": {}},
            log_samples=False,
            apply_chat_template=steered.chat,
        )
    for task in tasks.values():
        task.build_all_requests = _forget_answers(task)
    return results


def _forget_answers(task: HarnessTask) -> Callable[..., None]:
    def reuse(**_: Any) -> None:
        for instance in task.instances:
            instance.resps.clear()
            instance.filtered_resps.clear()

    return reuse
