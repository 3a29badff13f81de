"""What lm-eval makes of a document's answers in every cell, asked once for cells that agree.

    cell          0     1     2     3
    likeliest     A     A     B     A     of all answers
    by letter     A     A     B     B     likeliest, log-probabilities divided by the letters
    greedy        –     –     B     –     answers that the model would give by itself
    asked         yes   as 0  yes   yes

A task that computes its metrics itself is asked in every cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from sadi_bench.models.shapes import Bool, Float, Int
from sadi_bench.scoring.bridge import SteeredLM
from sadi_bench.tasks.metrics import paper_match
from sadi_bench.tasks.task import DOC_ID, GOLD, GROUP, PAPER_MATCH

DECIDED_BY_CHOICES = {"acc", "acc_norm", "exact_match"}
"""lm-eval's metrics that follow from what stands in the picture above."""
TEXTS_KEPT = 1 << 14
"""Decoded predictions that are remembered; long ones are rarely said twice."""


@dataclass(frozen=True)
class Outcome:
    """Hold one document's rows of the grid: an entry a cell.

    A cell that overflowed has metrics of 0, log-probabilities of -inf, and predicts "".
    """

    doc_id: int
    group: str
    gold: int
    metrics: Mapping[str, Float[np.ndarray, " cell"]]
    logprobs: Float[np.ndarray, "cell choice"]
    predicted: Sequence[str]
    finite: Bool[np.ndarray, " cell"]


class Outcomes:
    """Compute the outcomes of a split's documents from answers that are scored."""

    def __init__(self, steered: SteeredLM, split: ConfigurableTask, metrics: Sequence[str]) -> None:
        self.steered, self.split, self.metrics = steered, split, metrics
        self.by_choices = computes_by_choices(split, metrics)
        decode = partial(steered.tokenizer.decode, skip_special_tokens=True)
        self._decode = lru_cache(TEXTS_KEPT)(decode)

    def of(self, doc: Mapping[str, Any], asked: Sequence[Instance]) -> Outcome:
        """Compute one document's outcome; `asked` are its requests, answers in order."""
        answers = [self.steered.all_cells(instance.args) for instance in asked]
        logprobs = np.stack([answer.logprobs for answer in answers]).astype(np.float64)
        greedy = np.stack([answer.greedy for answer in answers])
        finite = np.stack([answer.finite for answer in answers]).all(axis=0)
        choices = self.split.doc_to_choice(doc)
        metrics = {name: np.zeros(len(finite)) for name in self.metrics}
        for cells in self._alike(logprobs, greedy, np.flatnonzero(finite), choices):
            first = cells[0]
            results = zip(logprobs[:, first].tolist(), greedy[:, first].tolist(), strict=True)
            found = self.split.process_results(doc, list(results))
            for name in self.metrics:
                metrics[name][cells] = float(found.get(name, np.nan))
        texts = [""] * len(finite)
        if PAPER_MATCH in metrics:
            texts = self._texts(answers[doc[GOLD]].predicted, finite)
            right = {text: paper_match(text, choices[doc[GOLD]]) for text in set(texts)}
            metrics[PAPER_MATCH] = finite * np.array([float(right[text]) for text in texts])
        # acc_mutual_info asks for more than the choices
        logs = logprobs[: len(choices)].T
        return Outcome(doc[DOC_ID], doc[GROUP], doc[GOLD], metrics, logs, texts, finite)

    def _alike(
        self,
        logprobs: Float[np.ndarray, "answer cell"],
        greedy: Bool[np.ndarray, "answer cell"],
        cells: Int[np.ndarray, " finite"],
        choices: Sequence[str],
    ) -> list[Int[np.ndarray, " some"]]:
        """Group cells whose metrics must be equal."""
        if not self.by_choices or not len(cells):
            return [cells[i : i + 1] for i in range(len(cells))]
        logs = logprobs[: len(choices), cells]
        letters = np.array([float(len(choice)) for choice in choices])
        with np.errstate(divide="ignore", invalid="ignore"):  # an answer without a letter
            by_letter = np.argmax(logs / letters[:, None], axis=0)
        keys = np.vstack([np.argmax(logs, axis=0), by_letter, greedy[:, cells]])
        _, numbers = np.unique(keys, axis=1, return_inverse=True)
        numbers = numbers.reshape(-1)
        return [cells[numbers == number] for number in range(numbers.max() + 1)]

    def _texts(
        self, predicted: Int[np.ndarray, "step cell"], finite: Bool[np.ndarray, " cell"]
    ) -> list[str]:
        """Decode what every cell predicts; "" where it overflowed."""
        columns = [tuple(tokens) for tokens in predicted.T.tolist()]
        pairs = zip(columns, finite.tolist(), strict=True)
        return [self._decode(tokens) if known else "" for tokens, known in pairs]


def computes_by_choices(split: ConfigurableTask, metrics: Sequence[str]) -> bool:
    """Say whether a document's metrics follow from the likeliest answers and the greedy flags."""
    own = callable(split.config.process_results)
    own = own or type(split).process_results is not ConfigurableTask.process_results
    return not own and {*metrics} <= {*DECIDED_BY_CHOICES, PAPER_MATCH}
