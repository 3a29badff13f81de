"""The grid: every document's metrics in every cell, computed by lm-eval."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task as HarnessTask
from tqdm import tqdm

from sadi_bench.scoring.harness import SteeredLM, evaluate_cell
from sadi_bench.tasks.task import DOC_ID, GOLD, Task

METRICS = ("exact_match", "acc", "acc_norm")


def scored_splits(task: Task) -> dict[str, HarnessTask]:
    """Name the splits that cells are scored on; the paper's protocol has no select split."""
    splits = {"select": task.select, "test": task.test}
    return {name: harness for name, harness in splits.items() if harness is not None}


def score_grid(task: Task, steered: SteeredLM) -> pd.DataFrame:
    """Score both splits in all cells in one go; one row a split × doc_id × cell.

    Columns: split, doc_id, cell, size, the cell's hyper-parameters (null for the unsteered cell 0),
    the metrics, gold, choice_logprobs, finite. A cell that left the number range has metrics of 0.
    """
    splits = scored_splits(task)
    evaluate_cell(steered, {f"{task.name}_{name}": split for name, split in splits.items()}, 0)
    metrics, frames = metrics_of(task), []
    columns = ["doc_id", "cell", *metrics, "gold", "choice_logprobs", "finite"]
    for name, split in splits.items():
        rows = pd.DataFrame(_rows(steered, split, metrics), columns=columns)
        rows.insert(0, "split", name)
        frames.append(rows)
    return with_parameters(pd.concat(frames, ignore_index=True), steered)


def metrics_of(task: Task) -> tuple[str, ...]:
    """Name the metrics of a task that are one number a document."""
    return tuple(task.metrics) if task.spec.process_results else METRICS


def with_parameters(rows: pd.DataFrame, steered: SteeredLM) -> pd.DataFrame:
    """Put the cells' size and hyper-parameters behind the column `cell`; null for cell 0."""
    cells = pd.DataFrame([dict(cell.params) for cell in steered.intervention.cells])
    for name in cells.columns[cells.notna().all()]:
        cells[name] = cells[name].where(cells.index > 0)
    cells.insert(0, "cell", range(len(steered.intervention.cells)))
    cells.insert(1, "size", [cell.size for cell in steered.intervention.cells])
    merged = rows.merge(cells, on="cell", how="left", sort=False)
    place = rows.columns.get_loc("cell") + 1
    order = [*rows.columns[:place], *cells.columns[1:], *rows.columns[place:]]
    return merged[order]


def _rows(steered: SteeredLM, task: HarnessTask, metrics: Sequence[str]) -> Iterator[tuple]:
    """Hand every cell's answers on every document to lm-eval's process_results."""
    docs, asked = task.test_docs(), requests_by_doc(task)
    bar = tqdm(docs, desc=f"metrics, {task.config.test_split}", unit="doc", disable=None)
    for number, doc in enumerate(bar):
        answers = [steered.all_cells(instance.args) for instance in asked[number]]
        logprobs, greedy, finite = (np.stack(part) for part in zip(*answers, strict=True))
        choices = len(task.doc_to_choice(doc))  # acc_mutual_info asks for more than these
        valid = finite.all(axis=0)
        for cell in range(logprobs.shape[1]):
            results = list(zip(logprobs[:, cell].tolist(), greedy[:, cell].tolist(), strict=True))
            found = task.process_results(doc, results) if valid[cell] else dict.fromkeys(metrics, 0)
            values = (float(found.get(metric, np.nan)) for metric in metrics)
            logs = logprobs[:choices, cell].astype(float)
            yield (doc[DOC_ID], cell, *values, doc[GOLD], logs, bool(valid[cell]))


def requests_by_doc(task: HarnessTask) -> dict[int, list[Instance]]:
    """Group a built task's requests by document, answers in order."""
    found: dict[int, list[Instance]] = {}
    for instance in sorted(task.instances, key=lambda instance: instance.idx):
        found.setdefault(instance.doc_id, []).append(instance)
    return found
