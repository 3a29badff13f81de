"""README.md of an export: what it is, what was measured, how it was made, how to use it."""

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from sadi_bench.models.loading import TINY_RANDOM
from sadi_bench.results.also_table import also_table
from sadi_bench.results.exporting.control_vector import VECTOR
from sadi_bench.results.exporting.exported import LIBRARY, POSITIONS, Exported
from sadi_bench.results.exporting.lm_eval_files import LM_EVAL_FILES
from sadi_bench.results.formatting import (
    markdown,
    metric_name,
    p_value,
    parameters,
    score,
    score_difference,
    score_interval,
    unit,
)
from sadi_bench.results.run_dir import STEERING
from sadi_bench.results.run_facts import metric_of, shown_metrics
from sadi_bench.steering.intervention import AnswerBias

HUB_METRICS = {"acc": "accuracy"}
"""A metric of ours → what the hub calls it, where it calls it otherwise."""
HUB_TASKS = {"multiple_choice": "multiple-choice", "generate_until": "text-generation"}


def model_card(exported: Exported, with_vector: bool) -> str:
    """Write the card: YAML that the hub reads, then Markdown."""
    ours = exported.ours
    title = f"# {ours['method']} on {ours['model']}, learnt and measured on {ours['task']}"
    parts = [f"---\n{card_data(exported).to_yaml()}\n---", title, _what(exported)]
    parts += ["## What was measured", _measured(exported)]
    parts += [_elsewhere(ours)] if "also" in ours else []
    parts += ["## How it was made", _made(exported)]
    parts += ["## How to use it", _use(exported, with_vector)]
    parts += ["## Limits", _bullets(_limits(exported, with_vector))]
    return "\n\n".join(parts) + "\n"


def card_data(exported: Exported) -> ModelCardData:
    """Return the card's metadata; what is not known is left out."""
    origin = exported.steering.origin
    tags = ["activation-steering", "steering-vectors", str(origin.method["kind"])]
    return ModelCardData(
        base_model=exported.hub_model,
        library_name=LIBRARY,
        tags=[*tags, str(origin.method["name"])],
        model_name=f"{exported.ours['model']}, steered by {exported.ours['method']}",
        eval_results=[*_eval_results(exported, "heldout"), *_eval_results(exported, "unsteered")],
    )


def _eval_results(exported: Exported, row: str) -> list[EvalResult]:
    ours, task = exported.ours, exported.config["task"]
    cell = f"{exported.row_name(row)} {parameters(ours['protocols'][row]['params'])}".strip()
    values = {m: metric_of(ours, row, m).get("value") for m in shown_metrics(ours)}
    return [
        EvalResult(
            task_type=HUB_TASKS[task["output_type"]],
            dataset_type=(task.get("hub") or {}).get("path") or ours["task"],
            dataset_name=ours["task"],
            dataset_split="test",
            metric_type=HUB_METRICS.get(metric, metric),
            metric_value=value,
            metric_name=f"{metric_name(metric)}, {cell}",
        )
        for metric, value in values.items()
        if value is not None
    ]


def _what(exported: Exported) -> str:
    ours, steering = exported.ours, exported.steering
    chosen, metric = exported.heldout["selection"], metric_name(ours["protocols"]["metric"])
    does = (
        "It adds a constant to the log-probability of every answer and edits no activation"
        if isinstance(steering, AnswerBias)
        else f"It edits activations (site `{steering.site.value}`) of the frozen model at "
        f"{POSITIONS[steering.reach]}"
    )
    return (
        f"`{STEERING}` holds what the method `{ours['method']}` learnt from contrastive pairs of "
        f"the task {ours['task']}. {does}; the model's weights stay as they are and are not part "
        f"of this folder. Of its {len(steering.cells) - 1} settings, the held-out cell is number "
        f"{exported.cell}: `{parameters(exported.heldout['params'])}`. It had the best {metric} on "
        f"{chosen['n']} documents that are neither learnt from nor tested on."
    )


def _measured(exported: Exported) -> str:
    ours = exported.ours
    header = ["", "unsteered", "95 %", "held-out cell", "95 %", "difference", "95 %", "p"]
    rows = [header, *(_row(ours, metric) for metric in shown_metrics(ours))]
    chance = ours.get("chance")
    notes = [f"{ours['protocols']['unsteered']['n']} test documents of {ours['task']}"]
    notes += [f"{ours['fewshot']} demonstrations"]
    notes += [] if chance is None else [f"chance {100 * chance:.1f} %"]
    less = [f"Less {metric_name(ours['protocols']['metric'])} is better."]
    said = [*less] if ours["protocols"].get("lower_is_better") else []
    found = ours.get("diagnosis")
    said += [f"**{found['sentence']}**"] if found and found["row"] == "heldout" else []
    said += [f"{note}." for note in _judges(ours)]
    return "\n\n".join([f"{', '.join(notes)}.", markdown(rows, 1).rstrip("\n"), *said])


def _row(ours: Mapping[str, Any], metric: str) -> list[str]:
    plain, steered = (metric_of(ours, row, metric) for row in ("unsteered", "heldout"))
    gain = steered.get("difference")
    return [
        f"{metric_name(metric)}{unit(metric)}",
        score(metric, plain.get("value")),
        score_interval(metric, plain.get("ci95")),
        score(metric, steered.get("value")),
        score_interval(metric, steered.get("ci95")),
        "–" if gain is None else score_difference(metric, gain),
        score_interval(metric, steered.get("difference_ci95")),
        p_value(steered.get("p_value")),
    ]


def _elsewhere(ours: Mapping[str, Any]) -> str:
    """Show the same cell on the other tasks that the run was asked about."""
    lines = also_table(ours["also"], {"heldout": "held-out cell"})
    return "\n".join(["The same cell on the test rows of other tasks:", "", "```", *lines, "```"])


def _judges(ours: Mapping[str, Any]) -> list[str]:
    notes = [judged["note"] for judged in ours.get("judged", {}).values()]
    return [note for note in dict.fromkeys([*notes, ours.get("judge_note")]) if note]


def _made(exported: Exported) -> str:
    ours, origin = exported.ours, exported.steering.origin
    settings = {k: v for k, v in origin.method.items() if k not in ("name", "kind") and v != ""}
    there, counts = ours["environment"], ours["counts"]
    versions = ", ".join(f"{name} {number}" for name, number in there["packages"].items())
    revision = f", revision `{origin.model['revision']}`" if origin.model["revision"] else ""
    wrapped = "wrapped in the model's chat template" if origin.template else "as they are"
    rows = [
        f"model: {exported.source}{revision}, {origin.model['dtype']}, prompts {wrapped}",
        f"task: {ours['task']}, {counts['pairs']} contrastive pairs",
        f"method: `{origin.method['name']}` ({_settings(settings)})",
        f"protocol: {ours['protocol']}; seed {exported.config['seed']}",
        f"documents: {counts['select']} to choose the cell, {counts['test']} to test",
        f"code: {LIBRARY} {there['sadi_bench']}, commit {there['commit'] or 'of a release'}",
        f"libraries: {versions}",
    ]
    if ours.get("finetune"):
        rows.insert(1, f"fine-tuned first ({ours['finetune']['kind']}) on the pairs' right answers")
    return _bullets(rows)


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}: {_value(value)}`" for name, value in settings.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def _use(exported: Exported, with_vector: bool) -> str:
    lines = ["import sadi_bench as sb", "", f"lm = sb.load_model({_loading(exported)})"]
    lines += [f'steering = sb.Intervention.load("{STEERING}")']
    if isinstance(exported.steering, AnswerBias):
        lines += [f'task = sb.load_task("{exported.ours["task"]}")']
        lines += ["frame = sb.score(lm, task, steering)"]
    else:
        lines += ['print(sb.generate(lm, ["Is the sky blue?"], steering, cell="heldout"))']
        lines += ['with sb.applied(lm.network, steering, cell="heldout"):']
        lines += ["    ...  # whatever runs lm.network here runs it steered"]
    files = ", ".join(f"`{name}`" for name in LM_EVAL_FILES.values())
    parts = ["\n".join(["```python", *lines, "```"])]
    parts += [f"{files}: the numbers above that lm-eval knows, in its own schema."]
    if with_vector:
        parts += [f"`{VECTOR}`: for llama.cpp, `--control-vector {VECTOR}`."]
    return "\n\n".join(parts)


def _loading(exported: Exported) -> str:
    """Write the arguments that load the model; a folder's place is for the reader to fill in."""
    model, ours = exported.model, exported.ours
    made_here = model.get("package") or model["pretrained"] == TINY_RANDOM
    name = exported.hub_model or (ours["model"] if made_here else "FOLDER")
    name = "FOLDER OF THE FINE-TUNED MODEL" if ours.get("finetune") else name
    given = [f'"{name}"', f'dtype="{model["dtype"]}"']
    if exported.hub_model and exported.steering.origin.model["revision"]:
        given.append(f'revision="{exported.steering.origin.model["revision"]}"')
    if model["chat_template"]:
        given.append("chat_template=True")
    return ", ".join(given)


def _limits(exported: Exported, with_vector: bool) -> list[str]:
    ours = exported.ours
    beyond = "that are not named here" if "also" in ours else "of the model"
    found = [
        "Learnt and chosen on one task, one model and one form of prompt. What it does to other "
        f"abilities {beyond} is not known.",
        f"It fits the weights that it was learnt from; `{LIBRARY}` refuses others.",
        "p compares the held-out cell with the unsteered model on the same documents; it is not "
        "corrected for the number of metrics.",
    ]
    if ours.get("finetune"):
        found.append("It was learnt from a model that was fine-tuned here and is not published.")
    if count := exported.heldout["n_nonfinite"]:
        found.append(f"In the held-out cell, numbers overflowed on {count} test documents.")
    if with_vector:
        found.append(
            f"llama.cpp adds `{VECTOR}` at every token, where the numbers above are of steering at "
            f"{POSITIONS[exported.steering.reach]}: they do not hold for it."
        )
    return found


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
