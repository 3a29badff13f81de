"""Whole runs of tasks whose answers are written, on tiny-random and a few rows of our own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sadi_bench.results.reading import load_run
from scoring.judges.judge_cases import sentences, write_annotated, write_judged
from tasks.open_ended_files import write_toxigen, write_triviaqa, write_truthfulqa
from terminal import Finished, command

SIZES = {
    "triviaqa": ("task.n_pairs=8", "task.n_select=4", "task.n_test=6"),
    "truthfulqa": ("task.n_pairs=6", "task.n_select=4", "task.n_test=6"),
    "toxigen": ("task.n_pairs=8", "task.n_select=6", "task.fewshot=2"),
}
SHORT = "task.generation_kwargs.max_gen_toks=12"
METHODS = {
    "none": (),
    "sadi-head": ("method.top_k=[3,1]", "method.strength=[50,-20]"),
    "sadi-neuron": ("method.top_k=4", "method.strength=[9,-9]"),
    "sadi-hidden": ("method.top_k=[4,9]", "method.strength=9"),
    "caa": ("method.layer=1", "method.multiplier=[-2,4]"),
    "iti": ("method.top_k=3", "method.alpha=[5,30]"),
    "hpr": ("method.top_k=[1,2]",),
    "inferaligner": ("method.top_k=2", "method.alpha=[-4,4]"),
    "tda": ("method.threshold=[0.5,2]",),
    "random-head": ("method.top_k=3", "method.strength=[20,40]"),
    "fixed-head": ("method.top_k=3", "method.strength=[20,40]"),
}


def letters(seed: int) -> list[tuple[str, str, float]]:
    """Sentence, group and rating: letters of the alphabet's first half are rated high."""
    draw = np.random.default_rng(seed).choice
    halves = {4.5: [*"abcdefghijklm"], 1.5: [*"nopqrstuvwxyz"], 3.0: [*"AN0123456789,;"]}
    return [
        (" ".join(draw(half, 12)), f"group {i % 6}", rating)
        for i in range(120)
        for rating, half in halves.items()
    ]


def write_tasks(folder: Path) -> None:
    """Write three tasks, and what the offline judges are trained on, in their original formats."""
    write_triviaqa(folder / "triviaqa")
    write_truthfulqa(folder / "truthfulqa")
    write_judged(folder / "truthfulqa", sentences())
    write_toxigen(folder / "toxigen")
    write_annotated(folder / "toxigen", letters(0))


def stand_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with a cache of its own, without a hub and without a user's settings."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SADI_BENCH_CACHE", str(folder / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("SADI_BENCH_DATA", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)


def arguments(task: str, *typed: str, method: str = "sadi-head") -> tuple[str, ...]:
    """Write the command line of a small run; a later setting takes the place of an earlier one."""
    given = {setting.partition("=")[0] for setting in typed}
    defaults = ("model=tiny-random", f"task={task}", f"task.data_dir={task}", "runs_dir=runs",
                f"method={method}", SHORT, *SIZES[task], *METHODS[method])  # fmt: skip
    return (*(d for d in defaults if d.partition("=")[0] not in given), *typed)


def run_of(task: str, *typed: str, method: str = "sadi-head") -> Finished:
    return command(*arguments(task, *typed, method=method))


def texts_of(finished: Finished) -> pd.DataFrame:
    return pd.DataFrame(load_run(finished.path).texts)


def refused(finished: Finished, start: str) -> bool:
    assert finished.code == 2, finished.err
    assert len(finished.complaints) == 1
    assert "Traceback" not in finished.err
    return finished.complaints[0].startswith(f"sadi-bench: {start}")


def fits(finished: Finished) -> bool:
    """Say whether no line but the run directory's is wider than 100 columns."""
    return max(len(line) for line in finished.out.splitlines()[:-1]) <= 100
