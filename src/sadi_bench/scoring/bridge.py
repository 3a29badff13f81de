"""The bridge to lm-eval: it asks, we answer for one cell, it computes the metrics."""

import copy
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import lm_eval
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import Task as HarnessTask

from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.shapes import Bool, Float, Int
from sadi_bench.scoring.answers import ChoiceRequest, ChoiceScores, Tokens
from sadi_bench.scoring.choices import score_choices
from sadi_bench.scoring.generation import Generated, GenerationRequest, generate
from sadi_bench.scoring.measured import Measured
from sadi_bench.steering.intervention import UNSTEERED_MODEL, Intervention
from sadi_bench.tasks.quiet import quiet_libraries

MAX_NEW_TOKENS = 256  # lm-eval's, where a task does not say


class CellScores(NamedTuple):
    """Hold one answer's scores in every cell, as `ChoiceScores` has them."""

    logprobs: Float[np.ndarray, " cell"]
    greedy: Bool[np.ndarray, " cell"]
    predicted: Int[np.ndarray, "step cell"]
    finite: Bool[np.ndarray, " cell"]


class SteeredLM(TemplateLM):
    """Answer lm-eval's requests for the cell named by `cell`.

    Requests not seen before are scored in all cells at once; the other cells then read the answer.
    """

    def __init__(
        self,
        lm: LanguageModel,
        intervention: Intervention = UNSTEERED_MODEL,
        *,
        keep_newline: bool = False,
        token_budget: int | None = None,
        cell: int = 0,
        writing_cells: Sequence[int] | None = None,
    ) -> None:
        """Bind a model and an intervention; `writing_cells` write when a text is asked for."""
        super().__init__()
        self.lm, self.tokenizer, self.intervention = lm, lm.tokenizer, intervention
        self.keep_newline, self.token_budget = keep_newline, token_budget
        self.cell = cell
        self.writing_cells = writing_cells or range(len(intervention.cells))
        self.merged: set[tuple[str, str]] = set()
        self._encoded: dict[tuple[str, str], tuple[Tokens, Tokens]] = {}
        # A prompt's arrays, and the answer's row in them: an object an answer and cell is too much.
        self._scores: dict[tuple[Tokens, Tokens], tuple[ChoiceScores, int]] = {}
        self._texts: dict[GenerationRequest, dict[int, Generated]] = {}
        self._measured = Measured(len(intervention.cells))

    def at(self, cell: int, writing_cells: Sequence[int] | None = None) -> "SteeredLM":
        """Return a view that answers for another cell; what was scored is shared."""
        view = copy.copy(self)
        view.cell, view.writing_cells = cell, writing_cells or self.writing_cells
        return view

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
        """Render a chat with the tokenizer's template."""
        return self.lm.render_chat(chat_history, add_generation_prompt)

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
        prompts: dict[Tokens, Tokens] = {}  # one tuple a prompt, however many its answers
        pairs = [
            (prompts.setdefault(tuple(context), tuple(context)), tuple(answer))
            for _, context, answer in requests
        ]
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
        scores = score_choices(self.lm, requests, self.intervention, self.token_budget)
        for request, score in zip(requests, scores, strict=True):
            for number, answer in enumerate(request.answers):
                self._scores[request.prompt, answer] = score, number
            self._measured.add(request.prompt, range(len(score.finite)), score.measured)

    def measured(self) -> dict[str, list[float | None]]:
        """Average what the intervention did over the prompts that each cell was scored on, by name.

        Empty where it measures nothing; None for a cell that was scored on no prompt.
        """
        return self._measured.means()

    def _answer(self, pair: tuple) -> tuple[float, bool]:
        found = self._of(pair)
        return float(found.logprobs[self.cell]), bool(found.greedy[self.cell])

    def _of(self, pair: tuple[Tokens, Tokens]) -> CellScores:
        scores, number = self._scores[pair]
        predicted = scores.predicted[number]
        greedy = (pair[1] == predicted.T).all(axis=1)
        return CellScores(scores.logprobs[number], greedy, predicted, scores.finite)

    def all_cells(self, args: tuple[str, str]) -> CellScores:
        """Return an answer's scores in every cell."""
        return self._of(self._encoded[args])

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
        """Return what `cells` (else `writing_cells`) write; what is known is not redone.

        `asked` are contexts with lm-eval's generation_kwargs.
        """
        cells = cells or self.writing_cells
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
                for cell, text in written.items():
                    self._measured.add(request.prompt, [cell], text.measured)
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


def evaluate_cell(
    steered: SteeredLM, tasks: Mapping[str, HarnessTask], cell: int, seed: int = 0
) -> dict[str, Any]:
    """Run lm-eval's own evaluation for one cell; `seed` draws the demonstrations."""
    for task in tasks.values():
        task.set_fewshot_seed(seed)  # its sampler goes on where the last build left it
    with quiet_libraries():
        return lm_eval.evaluate(
            steered.at(cell),
            {"tasks": dict(tasks), "groups": {}, "group_map": {}},
            log_samples=False,
            apply_chat_template=steered.lm.chat,
        )
