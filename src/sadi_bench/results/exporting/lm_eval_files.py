"""One row of a run as lm-eval writes a model's results: a file a row, under the task's own name."""

from typing import Any

from sadi_bench.results.exporting.exported import Exported

LM_EVAL_FILES = {"heldout": "results_heldout.json", "unsteered": "results_unsteered.json"}
"""A row of the report → its file; other tools look for `results_*.json`."""
SUFFIXES = {"heldout": "_heldout", "unsteered": ""}
PLAIN = ("git_hash", "date", "lm_eval_version", "transformers_version")


def lm_eval_file(exported: Exported, row: str) -> dict[str, Any] | None:
    """Return lm-eval's results of one row; None where lm-eval has no number for it.

    `model_args` says whether the model was steered, by what, and in which cell: a tool that reads
    the file as a model's score shows them beside it.
    """
    result, task = exported.run.result, exported.ours["task"]
    entry = task + SUFFIXES[row]
    if entry not in result["results"]:
        return None
    found = {
        key: {task: value[entry]}
        for key, value in result.items()
        if isinstance(value, dict) and entry in value
    }
    renamed = {key: task for key in ("name", "alias") if key in found["results"][task]}
    found["results"] = {task: {**found["results"][task], **renamed}}
    args, name = _model_args(exported, row), exported.ours["model"]
    return {
        **found,
        "group_subtasks": {},
        "config": {**result["config"], "model_args": args},
        "model_source": result["config"]["model"],
        "model_name": f"{name}, steered by {args['method']}" if args["steered"] else name,
        **{key: result[key] for key in PLAIN},
    }


def _model_args(exported: Exported, row: str) -> dict[str, Any]:
    args: dict[str, Any] = {"pretrained": exported.source, "dtype": exported.model["dtype"]}
    if exported.ours.get("finetune"):
        args["finetune"] = exported.ours["finetune"]["kind"]
    if row == "unsteered":
        return {**args, "steered": False}
    params = exported.ours["protocols"][row]["params"]
    return {
        **args,
        "steered": True,
        "method": exported.ours["method"],
        "cell": exported.cell,
        **params,
    }
