"""From what a user chose to a judge: settle `auto`, refuse what cannot be had, load."""

import hashlib
from dataclasses import replace
from importlib import import_module
from types import ModuleType

from sadi_bench.downloads.hub import hub_answers
from sadi_bench.errors import SettingError
from sadi_bench.models.loading import folder_fingerprint, resolved
from sadi_bench.models.spec import ModelSpec
from sadi_bench.scoring.judges.base import Judge
from sadi_bench.scoring.judges.origins import check_source, is_here
from sadi_bench.scoring.judges.spec import JudgeSpec

AUTO = {
    "toxigen": ("toxigen-hatebert", "toxigen-offline"),
    "truthfulqa": ("truthfulqa", "truthfulqa-offline"),
}
"""The part of a task's name before any `_` → the paper's judge, and the one without the hub."""

OFFLINE = ("toxigen-offline", "truthfulqa-offline")


def resolved_judge(spec: JudgeSpec, task: str, data_dir: str | None = None) -> JudgeSpec:
    """Replace `auto` by what judges here, and refuse now what could not be loaded later.

    `task` and `data_dir` are the task's name and folder. What it reads decides the result, and
    nothing else is set, so a run's hash may be taken of it.
    """
    if spec.kind == "auto":
        spec = spec.only_heeded(_auto(spec, task))
    if spec.kind == "none":
        return spec
    module = _module(spec.kind)
    if spec.kind in OFFLINE:
        module.files(spec, data_dir)
        return spec
    found = {
        setting: check_source(setting, getattr(spec, setting), spec.revision, module.REMEDY)
        for setting in module.PAPERS
    }
    if spec.tokenizer:
        found["tokenizer"] = check_source("tokenizer", spec.tokenizer, "main", module.REMEDY)
    return replace(spec, **found, **_hardware(spec))


def judge_of(spec: JudgeSpec, data_dir: str | None = None) -> Judge | None:
    """Load a resolved judge; None where none is chosen."""
    return None if spec.kind == "none" else _module(spec.kind).load(spec, data_dir)


def judge_fingerprint(spec: JudgeSpec, data_dir: str | None = None) -> str:
    """Hash the files of a resolved judge that its settings do not name; empty for the hub's."""
    if spec.kind in OFFLINE:
        digest = hashlib.sha256()
        for path in _module(spec.kind).files(spec, data_dir):
            digest.update(path.read_bytes())
        return digest.hexdigest()
    sources = (spec.pretrained, spec.tokenizer, spec.truth, spec.info)
    return "".join(folder_fingerprint(source) for source in sources)


def _module(kind: str) -> ModuleType:
    """Import a kind's file, and with it the libraries that only this kind needs."""
    return import_module(f"{__package__}.{kind.replace('-', '_')}")


def _auto(spec: JudgeSpec, task: str) -> str:
    """Choose the paper's judge where it is in a folder or the cache, or the hub answers.

    Judges of 7 billion weights are fetched by themselves only where a GPU is to run them.
    """
    family = task.partition("_")[0]
    if family not in AUTO:
        raise SettingError(
            f"judge=auto: no judge is known for task={task}; choose judge=none, or name one."
        )
    papers, offline = AUTO[family]
    if papers == "toxigen-hatebert":
        sources = [(spec.pretrained, spec.revision), (spec.tokenizer or spec.pretrained, "main")]
        fetch = True
    else:
        sources = [(spec.truth, spec.revision), (spec.info, spec.revision)]
        fetch = _hardware(spec)["device"].startswith("cuda")
    here = all(source and is_here(source, revision) for source, revision in sources)
    return papers if here or (fetch and hub_answers()) else offline


def _hardware(spec: JudgeSpec) -> dict[str, str]:
    """Settle where a judge runs, and in which type the language models do."""
    asked = ModelSpec(pretrained="tiny-random", device=spec.device, dtype=spec.dtype)
    try:
        found = resolved(asked)
    except SettingError as error:
        raise SettingError(str(error).replace("model.", "judge.")) from error
    if spec.kind == "toxigen-hatebert":
        return {"device": found.device}
    return {"device": found.device, "dtype": found.dtype}
