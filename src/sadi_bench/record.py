"""What a run writes down: result.json in lm-eval's schema, and rows that anyone can recompute."""

import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval
import pandas as pd
import torch

import sadi_bench
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.results.groups import group_means
from sadi_bench.results.run_dir import RunDir
from sadi_bench.scoring.bridge import SteeredLM, evaluate_cell
from sadi_bench.scoring.frame import requests_by_doc, scored_splits
from sadi_bench.scoring.texts import measures
from sadi_bench.settings import RunConfig
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.intervention import Intervention
from sadi_bench.steering.methods import Method
from sadi_bench.tasks.pairs import ContrastivePair
from sadi_bench.tasks.spec import PairsFrom
from sadi_bench.tasks.task import DOC_ID, GOLD, GROUP, Task

HEADLINES = {"unsteered": "", "heldout": "_heldout", "oracle": "_oracle"}
"""A row of the report → what its entry in lm-eval's `results` is called behind the task's name."""


def harness_results(
    task: Task, steered: SteeredLM, grid: pd.DataFrame, report: Mapping[str, Any]
) -> dict[str, Any]:
    """Let lm-eval evaluate the unsteered model and the chosen cells on the test split.

    A cell that left the number range on some document has no entry: lm-eval would take the first
    of answers that are all -inf, now and then the right one. Nor has a steered cell that skips
    documents, of which lm-eval knows nothing.
    """
    skips = "skipped" in grid and grid["skipped"].any()
    merged: dict[str, Any] = {}
    for row, suffix in HEADLINES.items():
        if row not in headline_cells(report) or report[row]["n_nonfinite"] or (suffix and skips):
            continue
        name = task.name + suffix
        found = evaluate_cell(steered, {name: task.test}, report[row]["cell"])
        found["configs"][name].pop("custom_dataset", None)  # a function's address is no setting
        for key, value in found.items():
            if isinstance(value, dict):
                merged.setdefault(key, {}).update(value)
    return merged


def result_of(
    config: RunConfig,
    method: Method,
    task: Task,
    steered: SteeredLM,
    grid: pd.DataFrame,
    report: Mapping[str, Any],
    counts: Mapping[str, int],
) -> dict[str, Any]:
    """Assemble result.json: lm-eval's keys, and ours under `sadi_bench`; `counts` are of pairs."""
    lm = steered.lm
    return {
        **harness_results(task, steered, grid, report),
        "config": {
            "model": "sadi-bench",
            "model_args": {"pretrained": lm.network.config._name_or_path or lm.name},
            "model_dtype": str(lm.dtype),
            "device": str(lm.device),
            "limit": config.task.n_test,
            "random_seed": config.seed,
            "fewshot_seed": config.seed,
        },
        "git_hash": _commit(),
        "date": time.time(),
        "lm_eval_version": lm_eval.__version__,
        "transformers_version": version("transformers"),
        "sadi_bench": {
            "task": task.name,
            "model": lm.name,
            "method": " ".join([config.method["name"], *method.departures()]),
            "protocol": config.protocol,
            "fewshot": config.task.fewshot,
            "chance": task.chance,
            "english_pairs": task.spec.pairs_from == PairsFrom.english,
            "protocols": report,
            "groups": _groups(task, grid, report),
            "counts": {**_counts(task, steered, grid), **counts},
            "notes": [*task.notes, *lm.notes],
            "environment": _environment(lm),
            **({} if lm.finetune is None else {"finetune": dict(lm.finetune)}),
            **_what_it_did(steered, report),
        },
    }


def _what_it_did(steered: SteeredLM, report: Mapping[str, Any]) -> dict[str, Any]:
    """Name a control as such, and give what was measured of the headline cells on the way."""
    control = getattr(steered.intervention, "control", False)
    found: dict[str, Any] = {"control": True} if control else {}
    if measured := steered.measured():
        found["measured"] = {
            row: {name: values[cell] for name, values in measured.items()}
            for row, cell in headline_cells(report).items()
        }
    return found


def headline_cells(report: Mapping[str, Any]) -> dict[str, int]:
    """Name the cells of the report's rows, of those that are one cell each."""
    rows = {row: report[row] for row in HEADLINES if report[row] is not None}
    return {row: found["cell"] for row, found in rows.items() if found["cell"] is not None}


def write_texts(
    run_dir: RunDir, texts: pd.DataFrame, report: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Write what the model wrote; say how the headline cells' texts of the test split read."""
    run_dir.write_texts(text_rows(texts))
    test = texts[texts["split"] == "test"]
    cells = headline_cells(report)
    return {"texts": {row: measures(test[test["cell"] == cell]) for row, cell in cells.items()}}


def text_rows(texts: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield one JSON object a document × cell; what was not measured is null."""
    for row in texts.to_dict("records"):
        yield {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }


def write_run(
    run_dir: RunDir,
    task: Task,
    steered: SteeredLM,
    grid: pd.DataFrame,
    pairs: Sequence[ContrastivePair],
    encoded: Sequence[EncodedContrast],
) -> None:
    """Write every file of a run but config.yaml, log.txt and the closing result.json."""
    intervention = steered.intervention
    run_dir.write_pairs(_pair_rows(pairs, encoded))
    run_dir.write_docs(_doc_rows(task, steered))
    run_dir.write_elements(
        pd.DataFrame(intervention.elements(), columns=["layer", "index", "score"])
        .rename_axis("rank")
        .reset_index()
    )
    run_dir.write_grid(grid)
    tensors = {name: tensor.cpu().numpy() for name, tensor in intervention.tensors().items()}
    run_dir.write_steering(tensors, _metadata(intervention, steered.lm))


def _pair_rows(
    pairs: Sequence[ContrastivePair], encoded: Sequence[EncodedContrast]
) -> Iterator[dict[str, Any]]:
    for pair, tokens in zip(pairs, encoded, strict=True):
        yield {
            **vars(pair),
            "prompt_tokens": tokens.prompt,
            "positive_tokens": tokens.positive,
            "negative_tokens": tokens.negative,
        }


def _doc_rows(task: Task, steered: SteeredLM) -> Iterator[dict[str, Any]]:
    for split, harness in scored_splits(task).items():
        docs, asked = harness.test_docs(), requests_by_doc(harness)
        for number, doc in enumerate(docs):
            row = {"split": split, "doc_id": doc[DOC_ID], "group": doc[GROUP]}
            if task.generates:
                row["prompt_tokens"] = steered.text_tokens(asked[number][0].args[0])
            else:
                choices = len(harness.doc_to_choice(doc))
                tokens = [steered.tokens(instance.args) for instance in asked[number][:choices]]
                row |= {"prompt_tokens": tokens[0][0], "gold": doc[GOLD]}
                row["choice_tokens"] = [answer for _, answer in tokens]
            yield row | {column: doc[column] for column in task.spec.group_by}


def _metadata(intervention: Intervention, lm: LanguageModel) -> dict[str, str]:
    """Describe the steering in one JSON text: safetensors orders several entries by lot."""
    facts = {
        "site": intervention.site.value,
        "reach": intervention.reach.value,
        "model": lm.network.config._name_or_path or lm.name,
        "model_type": lm.network.config.model_type,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "sadi_bench_version": sadi_bench.__version__,
    }
    return {"sadi_bench": json.dumps(facts, sort_keys=True)}


def _groups(task: Task, grid: pd.DataFrame, report: Mapping[str, Any]) -> dict[str, Any]:
    """Average every headline cell over groups of documents, each weighted by its documents."""
    cells = headline_cells(report)
    shown = ("acc", "paper_match", "exact_match") if "acc" in task.metrics else task.metrics
    docs = [{"split": "test", **doc} for doc in task.rows("test")] if task.spec.group_by else []
    return {
        column: {
            metric: group_means(grid, docs, column, cells, metric).to_dict("index")
            for metric in shown
        }
        for column in task.spec.group_by
    }


def _counts(task: Task, steered: SteeredLM, grid: pd.DataFrame) -> dict[str, int]:
    splits = scored_splits(task)
    return {
        **{name: len(harness.test_docs()) for name, harness in splits.items()},
        "cells": len(steered.intervention.cells),
        **({"test_cells": _test_cells(grid)} if task.generates else {}),
        "nonfinite_rows": int((~grid["finite"]).sum()),
        "merged_answers": len(steered.merged),
    }


def _test_cells(grid: pd.DataFrame) -> int:
    return int(grid.loc[grid["split"] == "test", "cell"].nunique())


def _environment(lm: LanguageModel) -> dict[str, Any]:
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "sadi_bench": sadi_bench.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {
            name: version(name)
            for name in ("torch", "transformers", "datasets", "lm_eval", "numpy", "pandas")
        },
        "device": torch.cuda.get_device_name() if lm.device.type == "cuda" else lm.device.type,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }


def _commit() -> str | None:
    """Name the commit of the code that runs, `-dirty` if it was changed; None for a wheel."""
    source = Path(__file__).resolve().parent
    if not (source.parents[1] / ".git").exists():
        return None
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
