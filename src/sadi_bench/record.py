"""What a run writes down: result.json in lm-eval's schema, and rows that anyone can recompute."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import lm_eval
import pandas as pd
import torch

from sadi_bench.grid_file import Columns
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.provenance import commit, environment
from sadi_bench.results.groups import group_means
from sadi_bench.results.paper.departures import departures
from sadi_bench.results.run_dir import RunDir
from sadi_bench.scoring.entries import entry_of
from sadi_bench.scoring.scores import Scores
from sadi_bench.scoring.texts import measures
from sadi_bench.settings import RunConfig
from sadi_bench.stages import Pairs, Prepared
from sadi_bench.steering.intervention import Intervention
from sadi_bench.steering.method import Method
from sadi_bench.tasks.spec import PairsFrom
from sadi_bench.tasks.task import Task

HEADLINES = {"unsteered": "", "heldout": "_heldout", "oracle": "_oracle"}
"""A row of the report → what its entry in lm-eval's `results` is called behind the task's name."""


def result_of(
    prepared: Prepared,
    steering: Intervention,
    scores: Scores,
    grid: Columns,
    rows: Mapping[str, Any],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Assemble result.json: lm-eval's keys, and ours under `sadi_bench`."""
    return {
        **lm_eval_results(prepared.task, scores, grid, rows),
        **_lm_eval_facts(prepared.config, prepared.lm),
        "sadi_bench": _ours(prepared, steering, scores, grid, rows, notes),
    }


def lm_eval_results(
    task: Task, scores: Scores, grid: Columns, rows: Mapping[str, Any]
) -> dict[str, Any]:
    """Give the unsteered model and the chosen cells an entry each, as lm-eval reports a task.

    A cell that overflowed on some document has no entry: lm-eval would take the first of answers
    that are all -inf, now and then the right one. Nor has a steered cell that skips documents, of
    which lm-eval knows nothing.
    """
    skips = "skipped" in grid and grid["skipped"].any()
    merged: dict[str, Any] = {}
    for row, suffix in HEADLINES.items():
        cell = headline_cells(rows).get(row)
        if cell is None or rows[row]["n_nonfinite"] or (suffix and skips):
            continue
        found = entry_of(task, scores.lm_eval, grid, cell, suffix)
        for name in found.get("configs", {}):  # a function's address is no setting
            found["configs"][name].pop("custom_dataset", None)
        for key, value in found.items():
            merged.setdefault(key, {}).update(value)
    return merged


def _lm_eval_facts(config: RunConfig, lm: LanguageModel) -> dict[str, Any]:
    return {
        "config": {
            "model": "sadi-bench",
            "model_args": {"pretrained": lm.network.config._name_or_path or lm.name},
            "model_dtype": str(lm.dtype),
            "device": str(lm.device),
            "limit": config.task.n_test,
            "random_seed": config.seed,
            "fewshot_seed": config.seed,
        },
        "git_hash": commit(),
        "date": time.time(),
        "lm_eval_version": lm_eval.__version__,
        "transformers_version": version("transformers"),
    }


def _ours(
    prepared: Prepared,
    steering: Intervention,
    scores: Scores,
    grid: Columns,
    rows: Mapping[str, Any],
    notes: Sequence[str],
) -> dict[str, Any]:
    config, method, task, lm = prepared.config, prepared.method, prepared.task, prepared.lm
    found = {
        "task": task.name,
        "model": lm.name,
        "method": " ".join([config.method["name"], *_departures(method, steering)]),
        "protocol": config.protocol,
        "fewshot": config.task.fewshot,
        "chance": task.chance,
        "english_pairs": task.spec.pairs_from == PairsFrom.english,
        "protocols": rows,
        "groups": _groups(task, grid, rows),
        "counts": _counts(prepared, steering, scores, grid),
        "notes": [*notes, *lm.notes],
        "environment": environment() | _hardware(lm),
    }
    if lm.finetune is not None:
        found["finetune"] = dict(lm.finetune)
    if method.control:
        found["control"] = True
    if scores.measured:
        found["measured"] = {
            row: {name: values[cell] for name, values in scores.measured.items()}
            for row, cell in headline_cells(rows).items()
        }
    return found


def _departures(method: Method, steering: Intervention) -> list[str]:
    return [*departures(steering.origin.method), *(["(control)"] if method.control else [])]


def headline_cells(rows: Mapping[str, Any]) -> dict[str, int]:
    """Name the cells of the report's rows, of those that are one cell each."""
    found = {row: rows[row] for row in HEADLINES if rows[row] is not None}
    return {row: each["cell"] for row, each in found.items() if each["cell"] is not None}


def write_texts(
    run_dir: RunDir, texts: pd.DataFrame, rows: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Write what the model wrote; say how the headline cells' texts of the test split read."""
    run_dir.write_texts(text_rows(texts))
    test = texts[texts["split"] == "test"]
    cells = headline_cells(rows)
    return {"texts": {row: measures(test[test["cell"] == cell]) for row, cell in cells.items()}}


def text_rows(texts: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield one JSON object a document × cell; what was not measured is null."""
    for row in texts.to_dict("records"):
        yield {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }


def write_run(run_dir: RunDir, steering: Intervention, scores: Scores, pairs: Pairs) -> None:
    """Write the rows that a run was made of; the grid, and the elements that were ranked."""
    run_dir.write_pairs(_pair_rows(pairs))
    run_dir.write_docs(scores.docs())
    run_dir.write_elements(
        pd.DataFrame(steering.elements(), columns=["layer", "index", "score"])
        .rename_axis("rank")
        .reset_index()
    )
    run_dir.write_grid(scores.pieces())


def _pair_rows(pairs: Pairs) -> Iterator[dict[str, Any]]:
    for pair, tokens in zip(pairs.texts, pairs.tokens, strict=True):
        yield {
            **vars(pair),
            "prompt_tokens": tokens.prompt,
            "positive_tokens": tokens.positive,
            "negative_tokens": tokens.negative,
        }


def _groups(task: Task, grid: Columns, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Average every headline cell over groups of documents, each weighted by its documents."""
    cells = headline_cells(rows)
    shown = ("acc", "paper_match", "exact_match") if "acc" in task.metrics else task.metrics
    docs = [{"split": "test", **doc} for doc in task.rows("test")] if task.spec.group_by else []
    return {
        column: {
            metric: group_means(grid, docs, column, cells, metric).to_dict("index")
            for metric in shown
        }
        for column in task.spec.group_by
    }


def _counts(
    prepared: Prepared, steering: Intervention, scores: Scores, grid: Columns
) -> dict[str, int]:
    splits = grid["split"]
    docs = grid["doc_id"].groupby(splits).nunique()
    found = {**docs.to_dict(), "cells": len(steering.cells)}
    if prepared.task.generates:
        found["test_cells"] = grid["cell"][splits == "test"].nunique()
    found |= {"nonfinite_rows": int((~grid["finite"]).sum()), "merged_answers": scores.merged}
    if "skipped" in grid:
        found["skipped"] = grid["doc_id"][grid["skipped"]].nunique()
    counts = found | dict(prepared.pairs.counts)
    return {name: int(count) for name, count in counts.items()}


def _hardware(lm: LanguageModel) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if lm.device.type == "cuda" else lm.device.type,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }
