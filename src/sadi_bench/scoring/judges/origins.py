"""Whether a judge's model or training file can be had, said in one line before anything runs."""

import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from sadi_bench.downloads.hub import hub_answers, hub_silence
from sadi_bench.errors import SettingError

# What is in the hub's cache if a model (the first four) or a tokenizer is.
CACHED_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                "pytorch_model.bin.index.json", "tokenizer.json", "tokenizer_config.json",
                "vocab.txt")  # fmt: skip


def is_here(source: str, revision: str) -> bool:
    """Say whether a model, or a tokenizer, is a local folder or in the hub's cache."""
    if Path(source).expanduser().exists():
        return True
    if source.startswith((".", "/", "~")):
        return False
    try:
        found = [try_to_load_from_cache(source, file, revision=revision) for file in CACHED_FILES]
    except HFValidationError:  # no name that a hub could have
        return False
    return any(isinstance(path, str) for path in found)


def check_source(setting: str, source: str | None, revision: str, remedy: str) -> str:
    """Return a hub name, or a local folder's path; refuse what cannot be had."""
    if not source:
        raise SettingError(
            f"judge.{setting} is not set: name a local folder or a hub model, {remedy}."
        )
    path = source[0] in "./~"
    if not is_here(source, revision) and (path or not hub_answers()):
        cause = f"{hub_silence()}, and it is not in the local cache"
        cause = "no such folder" if path else cause
        raise SettingError(f"judge.{setting}={source}: {cause}; name a local folder, {remedy}.")
    folder = Path(source).expanduser()
    return str(folder) if folder.exists() else source


def training_files(
    judge: str, judge_dir: str | None, task_dir: str | None, below: str, wanted: Sequence[str]
) -> tuple[Path, ...]:
    """Find the files that an offline judge is trained on, all in one folder.

    Looked for in judge.data_dir, or else in the task's folder, the one above it (a version of the
    data has a folder of its own), and `below` $SADI_BENCH_DATA. Each of `wanted` is a glob; the
    first file that it finds is taken.
    """
    folders = [Path(judge_dir).expanduser()] if judge_dir else []
    if not judge_dir and task_dir:
        tasks = Path(task_dir).expanduser().absolute()
        folders += [tasks, tasks.parent]
    if not judge_dir and (base := os.environ.get("SADI_BENCH_DATA")):
        folders.append(Path(base).expanduser() / below)
    for folder in folders:
        found = [next(iter(sorted(folder.glob(pattern))), None) for pattern in wanted]
        if None not in found:
            return tuple(path for path in found if path)
    setting = f"judge.data_dir={judge_dir}" if judge_dir else f"judge={judge}"
    looked = " or ".join(str(folder) for folder in folders)
    fault = f"not in {looked}" if folders else "and no folder is set"
    raise SettingError(
        f"{setting}: {judge} is trained on {' and '.join(wanted)}, {fault}; set judge.data_dir to "
        f"the folder that has it, or SADI_BENCH_DATA to the one above {below}/."
    )
