"""What the model writes in every cell: a grid of texts, and how they read."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from lm_eval.api.task import Task as HarnessTask

from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.scoring.bridge import SteeredLM, evaluate_cell
from sadi_bench.scoring.choices import ChoiceRequest, score_choices
from sadi_bench.scoring.frame import (
    Pieces,
    directions,
    requests_by_doc,
    scored_splits,
    with_parameters,
)
from sadi_bench.scoring.generation import Generated
from sadi_bench.scoring.judges.base import Generation, Judge
from sadi_bench.steering.intervention import UNSTEERED_MODEL, AnswerBias
from sadi_bench.tasks.task import DOC_ID, GROUP, Task

REPEATED_WORDS = 3
"""A text repeats itself where so many words in a row came before in it."""


def text_grid(
    task: Task,
    steered: SteeredLM,
    race: Callable[[pd.DataFrame], list[int]],
    judge: Judge | None,
) -> tuple[Pieces, pd.DataFrame, dict[str, Any]]:
    """Let every cell write on the select split, and those that `race` keeps on the test split.

    `race` is given the grid's rows of the select split and names cells, cell 0 among them.
    Returns the grid, as `frame.score_grid` does but in one piece and without gold and
    choice_logprobs, the texts, and lm-eval's evaluation of the unsteered model on the test split.
    """
    if isinstance(steered.intervention, AnswerBias):
        raise SettingError(
            f"task={task.name}: the model writes its answers, and a constant an answer changes no "
            "text; choose another method than calibrate."
        )
    frames, writing, evaluated = [], steered, {}
    columns = ["split", "doc_id", "group", "cell", *task.metrics, "finite"]
    for name, split in scored_splits(task).items():
        evaluated = evaluate_cell(writing, {task.name: split}, 0, task.seed)
        frames.append(_written(task, split, writing, judge))
        frames[-1].insert(0, "split", name)
        if name == "select":
            racing = with_parameters(frames[-1][columns], steered)
            writing = steered.at(0, writing_cells=race(racing))
    texts = pd.concat(frames, ignore_index=True)
    grid = with_parameters(texts[columns], steered)
    grid.attrs["metrics"] = directions(task)
    return partial(iter, [grid]), texts, evaluated


def headline_texts(task: Task, steered: SteeredLM, cells: Iterable[int]) -> pd.DataFrame:
    """Let these cells answer the test prompts of a multiple-choice task in their own words."""
    cells = sorted(set(cells))
    contexts = [asked[0].args[0] for _, asked in sorted(requests_by_doc(task.test).items())]
    asked = [(context, task.spec.generation_kwargs) for context in contexts]
    written = steered.texts(asked, cells)
    rows = _text_rows(task.test, contexts, written, cells)
    frame = pd.DataFrame(rows)
    frame.insert(0, "split", "test")
    return frame


def _written(
    task: Task, split: HarnessTask, steered: SteeredLM, judge: Judge | None
) -> pd.DataFrame:
    asked = [instances[0].args for _, instances in sorted(requests_by_doc(split).items())]
    written = steered.texts(asked)
    contexts = [context for context, _ in asked]
    frame = pd.DataFrame(_text_rows(split, contexts, written, steered.writing_cells))
    docs = {doc[DOC_ID]: doc for doc in split.test_docs()}
    found = [
        split.process_results(docs[row.doc_id], [row.text]) for row in frame.itertuples(index=False)
    ]
    scores = pd.DataFrame(found, index=frame.index)
    if judge is not None:
        asked_for = [Generation(r.question, r.text) for r in frame.itertuples(index=False)]
        scores = scores.assign(**judge.judge(asked_for))
    for metric, higher_is_better in task.metrics.items():
        scores.loc[~frame["finite"], metric] = 0.0 if higher_is_better else 1.0
    return pd.concat([frame, scores.astype(float)], axis=1)


def _text_rows(
    split: HarnessTask,
    contexts: Sequence[str],
    written: Sequence[Mapping[int, Generated]],
    cells: Sequence[int],
) -> Iterator[dict[str, object]]:
    for doc, context, found in zip(split.test_docs(), contexts, written, strict=True):
        for cell in cells:
            yield {
                "doc_id": doc[DOC_ID],
                "group": doc[GROUP],
                "cell": cell,
                "question": doc.get("question") or context,
                "context": context,
                "text": found[cell].text,
                "tokens": found[cell].tokens,
                "finite": found[cell].finite,
            }


def with_fluency(
    texts: pd.DataFrame, lm: LanguageModel, token_budget: int | None = None
) -> pd.DataFrame:
    """Add `logprob`, how likely the unsteered model holds each text of the test split."""
    test = texts[texts["split"] == "test"]
    asked: dict[str, dict[tuple[int, ...], None]] = {}
    for row in test.itertuples():
        if row.tokens:
            asked.setdefault(row.context, {})[row.tokens] = None
    requests = [ChoiceRequest(tuple(lm.encode(c)), tuple(found)) for c, found in asked.items()]
    scores = score_choices(lm, requests, UNSTEERED_MODEL, token_budget)
    known = {
        (context, tokens): float(logprob)
        for (context, found), score in zip(asked.items(), scores, strict=True)
        for tokens, logprob in zip(found, score.logprobs[:, 0], strict=True)
    }
    keys = zip(texts["context"], texts["tokens"], strict=True)
    return texts.assign(logprob=[known.get(key) for key in keys])


def measures(texts: pd.DataFrame) -> dict[str, float | int | None]:
    """Say how one cell's texts read.

    tokens: mean length. empty, repetition: shares (of texts; of word trigrams that came before in
    their text). perplexity: under the unsteered model, of all tokens of all texts together.
    """
    spoken = texts[texts["tokens"].map(len) > 0]
    n_tokens = int(spoken["tokens"].map(len).sum())
    seen, repeated = map(sum, zip(*map(_trigrams, texts["text"]), strict=True))
    return {
        "n": len(texts),
        "empty": float((texts["text"].str.strip() == "").mean()),
        "tokens": n_tokens / len(texts),
        "repetition": repeated / seen if seen else None,
        "perplexity": math.exp(-spoken["logprob"].sum() / n_tokens) if n_tokens else None,
    }


def _trigrams(text: str) -> tuple[int, int]:
    words = text.lower().split()
    found = Counter(zip(*(words[i:] for i in range(REPEATED_WORDS)), strict=False))
    return found.total(), found.total() - len(found)
