"""Say which of the paper's numbers may stand beside a run: those whose settings the run has."""

from collections.abc import Mapping
from importlib import resources
from pathlib import PurePath
from typing import Any

import yaml

from sadi_bench.results.paper import MODELS
from sadi_bench.steering.methods import STEPS

Settings = Mapping[str, Any]


def paper_names(config: Settings) -> dict[str, str | None]:
    """Name the paper's task, its row of a run's method, and its row of the unsteered model.

    `config` is a finished run's resolved config, as config.yaml has it; the names are ours. Each is
    None where the paper has no such number or the run departs from what it did (`published.yaml`).
    Sizes, seeds, dtype, device, judge, where the data lie and the protocol are no departures, nor
    is a part of the released grid. A config that lacks a setting, since an older version wrote it,
    does not say whether the run departs, and so has no number.
    """
    names = dict.fromkeys(("task", "method", "unsteered"))
    try:
        return names | _names(config)
    except KeyError:
        return names


def _names(config: Settings) -> dict[str, str | None]:
    task = PUBLISHED["tasks"].get(config["task"]["name"])
    if task is None or not (_same_task(config["task"], task) and _same_model(config["model"])):
        return {}
    names: dict[str, str | None] = {"task": config["task"]["name"]}
    if config["select_by"] == task["select_by"]:
        names["unsteered"] = _row("none", config.get("finetune"))
        names["method"] = _row(_method_name(config["method"]), config.get("finetune"))
    return names


def _published() -> Settings:
    """Read published.yaml, with every task's settings in full."""
    with resources.files(__package__).joinpath("published.yaml").open(encoding="utf-8") as file:
        found = yaml.safe_load(file)
    default = found["every_task"]
    for name, task in found["tasks"].items():
        settings = {**default["settings"], **task["settings"]}
        found["tasks"][name] = {**default, **task, "settings": settings}
    return found


PUBLISHED = _published()
"""published.yaml, with every task's settings in full."""


def _same_task(task: Settings, theirs: Settings) -> bool:
    settings = {"label_map": {}, **task}  # older runs do not name it
    asked = {key: settings[key] for key in theirs["settings"]}
    own = not task["harness"] and asked == theirs["settings"]
    return own and task["fewshot"] in theirs["fewshot"]


def _same_model(model: Settings) -> bool:
    """Let a model that the paper lacks stand in its rows; one of its own must be what it names."""
    repository = PUBLISHED["models"].get(MODELS.get(model["name"], model["name"]))
    if model["chat_template"] or repository is None:
        return not model["chat_template"]
    own = (model["tokenizer"], model["revision"], model["package"]) == (None, "main", None)
    return own and _is_of(str(model["pretrained"]), repository)


def _is_of(pretrained: str, repository: str) -> bool:
    """Take the repository itself, or a folder of its name; `owner/name` is another repository."""
    if pretrained.count("/") == 1 and pretrained[0] not in "/~.":
        return pretrained == repository
    return PurePath(pretrained).name == PurePath(repository).name


def _method_name(method: Settings) -> str | None:
    """Name a method as released; what its settings leave out has its default, which is so."""
    switches = PUBLISHED["methods"].get(method["kind"])
    if switches is None or any(_switch(method, key, own) != own for key, own in switches.items()):
        return None
    return _sadi_name(method) if method["kind"] == "sadi" else method["kind"]


def _switch(method: Settings, key: str, default: object) -> object:
    if key == "reach" and method.get("steps") is not None:
        return STEPS[method["steps"]]  # `steps` takes the place of `reach`
    return method.get(key, default)


def _sadi_name(method: Settings) -> str | None:
    """Name SADI or its ablation; None off the released grid."""
    kinds = {tuple(switches): kind for *switches, kind in PUBLISHED["ablations"]}
    kind = kinds.get((method.get("elements", "top"), method.get("vector", "adaptive")))
    site = method.get("site", "head")
    strengths = _listed(method.get("strength", []))
    if method.get("delta") is not None:
        strengths = [delta + 1 for delta in _listed(method["delta"])]
    grid = PUBLISHED["grids"][site]
    on_grid = {*_listed(method.get("top_k", []))} <= {*grid["top_k"]}
    on_grid = on_grid and {*strengths} <= {*grid["strength"]}
    return f"{kind}-{site}" if kind and on_grid else None


def _row(method: str | None, finetune: Settings | None) -> str | None:
    """Name a method's row on a model that was fine-tuned, or was not: `sft+sadi-head`."""
    if method is None or finetune is None or finetune["kind"] == "none":
        return method
    stated = PUBLISHED["finetune"]
    if {key: finetune[key] for key in stated} != stated:
        return None
    return "sft" if method == "none" else f"sft+{method}"


def _listed(values: object) -> list:
    return values if isinstance(values, list) else [values]
