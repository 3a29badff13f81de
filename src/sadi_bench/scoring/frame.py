"""The grid: every document's metrics in every cell, computed by lm-eval."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task as HarnessTask
from tqdm import tqdm

from sadi_bench.scoring.bridge import SteeredLM, evaluate_cell
from sadi_bench.scoring.outcomes import Outcome, Outcomes
from sadi_bench.tasks.readable import readable_rows
from sadi_bench.tasks.task import DOC_ID, GROUP, PAPER_MATCH, Task

METRICS = ("acc", "acc_norm", "exact_match", PAPER_MATCH)
ROWS_A_PIECE = 1 << 14
"""Most rows of a piece of the grid, at least one document's."""

Pieces = Callable[[], Iterator[pd.DataFrame]]
"""Makes a grid anew, some documents at a time: frames with the same columns and attrs."""


def scored_splits(task: Task) -> dict[str, HarnessTask]:
    """Name the splits that cells are scored on; the paper's protocol has no select split."""
    splits = {"select": task.select, "test": task.test}
    return {name: harness for name, harness in splits.items() if harness is not None}


def score_grid(task: Task, steered: SteeredLM) -> tuple[Pieces, dict[str, Any]]:
    """Score both splits in all cells in one go; what is returned makes the grid in pieces.

    Also returns lm-eval's own evaluation of the unsteered model on the test split.
    """
    evaluated = evaluate_cell(steered, named_splits(task), 0, task.seed)
    return partial(grid_pieces, task, steered), evaluated


def grid_pieces(task: Task, steered: SteeredLM) -> Iterator[pd.DataFrame]:
    """Yield the grid of scored splits, some documents at a time; a row a split × doc_id × cell.

    Columns: split, doc_id, group, cell, size, the cell's hyper-parameters (null for the unsteered
    cell 0), the metrics, gold, choice_logprobs, finite; and, before finite, predicted, the text
    that paper_match judged, where the task has it. A cell that overflowed has metrics of 0.
    `attrs`, which a parquet file keeps, has `parameters` (see `with_parameters`), `metrics` (name →
    whether higher is better) and, where all documents have the same answers, `answers`.
    """
    attrs: dict[str, Any] = {"metrics": directions(task)}
    if task.answers is not None:
        attrs["answers"] = list(task.answers)
    size = max(1, ROWS_A_PIECE // len(steered.intervention.cells))
    for name, split in scored_splits(task).items():
        outcomes, asked = Outcomes(steered, split, metrics_of(task)), requests_by_doc(split)
        bar = tqdm(split.test_docs(), desc=f"metrics, {name}", unit="doc", disable=None)
        found = (outcomes.of(doc, asked[number]) for number, doc in enumerate(bar))
        while some := list(islice(found, size)):
            piece = with_parameters(_rows(name, some), steered)
            piece.attrs |= attrs
            yield piece


def named_splits(task: Task) -> dict[str, HarnessTask]:
    """Name the scored splits for lm-eval: the test split like the task."""
    splits = scored_splits(task)
    return {
        task.name if name == "test" else f"{task.name}_{name}": split
        for name, split in splits.items()
    }


def doc_rows(task: Task, steered: SteeredLM) -> Iterator[dict[str, Any]]:
    """Yield a row a scored document: what was asked, as a person and as the model read it.

    Columns: split, doc_id, group; prompt, choices and the row's own columns as `row`, as texts;
    prompt_tokens, and of chosen answers choice_tokens; gold; the columns that averages go by.
    """
    for split, harness in scored_splits(task).items():
        asked, readable = requests_by_doc(harness), readable_rows(task, split)
        docs = zip(harness.test_docs(), readable, strict=True)
        for number, (doc, texts) in enumerate(docs):
            row = {"split": split, "doc_id": doc[DOC_ID], "group": doc[GROUP]}
            if task.generates:
                tokens = {"prompt_tokens": steered.text_tokens(asked[number][0].args[0])}
            else:
                found = [steered.tokens(i.args) for i in asked[number][: len(texts["choices"])]]
                tokens = {"prompt_tokens": found[0][0]}
                tokens["choice_tokens"] = [answer for _, answer in found]
            yield row | texts | tokens | {column: doc[column] for column in task.spec.group_by}


def metrics_of(task: Task) -> tuple[str, ...]:
    """Name the metrics of a task that are one number a document."""
    return METRICS if PAPER_MATCH in task.metrics else tuple(task.metrics)


def directions(task: Task) -> dict[str, bool]:
    """Say of every metric of `metrics_of` whether higher is better."""
    return {metric: task.metrics.get(metric, True) for metric in metrics_of(task)}


def with_parameters(rows: pd.DataFrame, steered: SteeredLM) -> pd.DataFrame:
    """Put the cells' size and hyper-parameters behind the column `cell`; the latter null for 0.

    `attrs["parameters"]` lists the hyper-parameters' columns.
    """
    cells = pd.DataFrame([dict(cell.params) for cell in steered.intervention.cells])
    for name in cells.columns[cells.notna().all()]:
        cells[name] = cells[name].where(cells.index > 0)
    parameters = [str(name) for name in cells.columns]
    cells.insert(0, "size", [cell.size for cell in steered.intervention.cells])
    of_rows = cells.take(rows["cell"].to_numpy()).set_axis(rows.index)
    place = rows.columns.get_loc("cell") + 1
    found = pd.concat([rows.iloc[:, :place], of_rows, rows.iloc[:, place:]], axis=1)
    found.attrs["parameters"] = parameters
    return found


def _rows(split: str, found: Sequence[Outcome]) -> pd.DataFrame:
    """Lay documents out, the cells of each below one another."""
    n_cells = len(found[0].finite)
    columns = {
        "split": split,
        "doc_id": np.repeat([each.doc_id for each in found], n_cells),
        "group": np.repeat(np.array([each.group for each in found], dtype=object), n_cells),
        "cell": np.tile(np.arange(n_cells), len(found)),
        **{
            name: np.concatenate([each.metrics[name] for each in found])
            for name in found[0].metrics
        },
        "gold": np.repeat([each.gold for each in found], n_cells),
        "choice_logprobs": [row for each in found for row in each.logprobs],
        "predicted": pd.Categorical([text for each in found for text in each.predicted]),
        "finite": np.concatenate([each.finite for each in found]),
    }
    if PAPER_MATCH not in found[0].metrics:
        del columns["predicted"]
    return pd.DataFrame(columns)


def requests_by_doc(task: HarnessTask) -> dict[int, list[Instance]]:
    """Group a built task's requests by document, answers in order."""
    found: dict[int, list[Instance]] = {}
    for instance in sorted(task.instances, key=lambda instance: instance.idx):
        found.setdefault(instance.doc_id, []).append(instance)
    return found
