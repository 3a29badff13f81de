"""What there is to choose from, a line each: `sadi-bench ls tasks|models|methods`."""

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sadi_bench.provenance import PACKAGE, config_folder
from sadi_bench.results.formatting import MAX_WIDTH, aligned

Settings = Mapping[str, Any]


def listed(group: str) -> str:
    """List the choices of a group with what each is, at most 100 columns wide."""
    name, described = LISTED[group]
    files = sorted((config_folder() / name).glob("*.yaml"))
    rows = [[file.stem, described(_settings(file))] for file in files]
    return "\n".join(_cut(line) for line in aligned(rows, n_text_columns=2))


def _settings(file: Path) -> Settings:
    """Read a YAML and those that it starts from."""
    own = OmegaConf.load(file)
    below = [entry for entry in own.pop("defaults", []) if isinstance(entry, str)]
    found = [file.parent / f"{entry.partition('@')[0]}.yaml" for entry in below]
    merged = [OmegaConf.create(dict(_settings(each))) for each in found if each.is_file()]
    return OmegaConf.merge(*merged, own)


def _task(task: Settings) -> str:
    if task.get("harness"):
        return "any multiple-choice task of lm-eval: task.name=NAME"
    answers = task.get("doc_to_choice")
    what = "writes its answers" if task.get("output_type") == "generate_until" else "chooses"
    if what == "chooses" and answers is not None and not isinstance(answers, str):
        what = f"chooses among {', '.join(map(str, answers))}"
    place = (task.get("package") or {}).get("requirement") or (task.get("hub") or {}).get("path")
    place = f"hub {place}" if place and "==" not in place else place
    return f"{what}; {place or 'your own file: task.data_dir=FILE'}"


def _model(model: Settings) -> str:
    package = (model.get("package") or {}).get("requirement")
    return str(model.get("pretrained") or package or "your own: model.pretrained=FOLDER")


def _method(method: Settings) -> str:
    source = PACKAGE / "steering" / "methods" / f"{method['kind']}.py"
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    what = text.partition("\n")[0].partition(" (")[0]
    departs = {
        name: value
        for name, value in method.items()
        if name in ("site", "elements", "vector", "bias") and value not in ("top", "adaptive")
    }
    shown = ", ".join(f"{name}={value}" for name, value in departs.items())
    return f"[{shown}] {what}" if shown else what


LISTED: Mapping[str, tuple[str, Callable[[Settings], str]]] = {
    "tasks": ("task", _task),
    "models": ("model", _model),
    "methods": ("method", _method),
}
"""A word of the command → its group of configs, and what describes a choice."""


def _cut(line: str) -> str:
    line = line.rstrip()
    return line if len(line) <= MAX_WIDTH else f"{line[: MAX_WIDTH - 1]}…"
