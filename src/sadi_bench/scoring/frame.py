"""The grid: every document's metrics in every cell, computed by lm-eval."""

from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task as HarnessTask
from tqdm import tqdm

from sadi_bench.scoring.bridge import SteeredLM, evaluate_cell
from sadi_bench.tasks.metrics import paper_match
from sadi_bench.tasks.readable import readable_rows
from sadi_bench.tasks.task import DOC_ID, GOLD, GROUP, PAPER_MATCH, Task

METRICS = ("acc", "acc_norm", "exact_match", PAPER_MATCH)


def scored_splits(task: Task) -> dict[str, HarnessTask]:
    """Name the splits that cells are scored on; the paper's protocol has no select split."""
    splits = {"select": task.select, "test": task.test}
    return {name: harness for name, harness in splits.items() if harness is not None}


def score_grid(task: Task, steered: SteeredLM) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Score both splits in all cells in one go; one row a split × doc_id × cell.

    Also returns lm-eval's own evaluation of the unsteered model on the test split.

    Columns: split, doc_id, group, cell, size, the cell's hyper-parameters (null for the unsteered
    cell 0), the metrics, gold, choice_logprobs, finite; and, before finite, predicted, the text
    that paper_match judged, where the task has it. A cell that overflowed has metrics of 0.
    `attrs`, which a parquet file keeps, has `parameters` (see `with_parameters`), `metrics` (name →
    whether higher is better) and, where all documents have the same answers, `answers`.
    """
    splits = scored_splits(task)
    evaluated = evaluate_cell(steered, named_splits(task), 0, task.seed)
    metrics, frames = metrics_of(task), []
    columns = ["doc_id", "group", "cell", *metrics, "gold", "choice_logprobs"]
    columns += [*(["predicted"] if PAPER_MATCH in metrics else []), "finite"]
    for name, split in splits.items():
        frames.append(pd.DataFrame(_rows(steered, split, metrics), columns=columns))
        frames[-1].insert(0, "split", name)
    grid = pd.concat(frames, ignore_index=True)
    if PAPER_MATCH in metrics:
        grid["predicted"] = grid["predicted"].astype("category")
    grid = with_parameters(grid, steered)
    grid.attrs["metrics"] = directions(task)
    if task.answers is not None:
        grid.attrs["answers"] = list(task.answers)
    return grid, evaluated


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
    cells.insert(0, "cell", range(len(steered.intervention.cells)))
    cells.insert(1, "size", [cell.size for cell in steered.intervention.cells])
    merged = rows.merge(cells, on="cell", how="left", sort=False)
    place = rows.columns.get_loc("cell") + 1
    order = [*rows.columns[:place], *cells.columns[1:], *rows.columns[place:]]
    merged = merged[order]
    merged.attrs["parameters"] = parameters
    return merged


def _rows(steered: SteeredLM, task: HarnessTask, metrics: Sequence[str]) -> Iterator[tuple]:
    """Hand every cell's answers on every document to lm-eval's process_results."""
    docs, asked = task.test_docs(), requests_by_doc(task)
    decode = cache(partial(steered.tokenizer.decode, skip_special_tokens=True))
    bar = tqdm(docs, desc=f"metrics, {task.config.test_split}", unit="doc", disable=None)
    for number, doc in enumerate(bar):
        answers = [steered.all_cells(instance.args) for instance in asked[number]]
        logprobs = np.stack([answer.logprobs for answer in answers])
        greedy = np.stack([answer.greedy for answer in answers])
        valid = np.stack([answer.finite for answer in answers]).all(axis=0)
        choices = task.doc_to_choice(doc)  # acc_mutual_info asks for more than these
        for cell in range(logprobs.shape[1]):
            found, text = dict.fromkeys(metrics, 0), ""
            if valid[cell]:
                results = zip(logprobs[:, cell].tolist(), greedy[:, cell].tolist(), strict=True)
                found = task.process_results(doc, list(results))
                text = decode(tuple(answers[doc[GOLD]].predicted[:, cell].tolist()))
                found[PAPER_MATCH] = paper_match(text, choices[doc[GOLD]])
            values = [float(found.get(metric, np.nan)) for metric in metrics]
            logs = logprobs[: len(choices), cell].astype(float)
            judged = [text] if PAPER_MATCH in metrics else []
            place = (doc[DOC_ID], doc[GROUP], cell)
            yield (*place, *values, doc[GOLD], logs, *judged, bool(valid[cell]))


def requests_by_doc(task: HarnessTask) -> dict[int, list[Instance]]:
    """Group a built task's requests by document, answers in order."""
    found: dict[int, list[Instance]] = {}
    for instance in sorted(task.instances, key=lambda instance: instance.idx):
        found.setdefault(instance.doc_id, []).append(instance)
    return found
