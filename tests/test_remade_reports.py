"""A finished run's report can be made again from its grid and its config, without the model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sadi_bench.results.grid import parameter_columns
from sadi_bench.results.remade import report_of_run
from sadi_bench.results.run_dir import sha256
from sadi_bench.results.strict_json import to_strict_json
from terminal import Finished, small_run, write_rows
from text_runs import run_of, stand_alone, write_tasks


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("remade")
    write_rows(folder / "boolq")
    write_tasks(folder)
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    stand_alone(folder, monkeypatch)


def remade(path: Path) -> dict:
    return json.loads(to_strict_json(report_of_run(path)))


def said(finished: Finished, *names: str) -> dict:
    return {name: finished.result["sadi_bench"][name] for name in names}


ALL = ("protocols", "cells", "answers", "diagnosis")


@pytest.mark.parametrize(
    "typed",
    [
        (),
        ("seed=3", "select_by=auc"),
        ("method=none",),
        ("method=random-head", "method.top_k=2", "method.strength=[5,9]", "method.draws=2"),
        ("protocol=released",),
        ("method=calibrate-prior",),
    ],
)
def test_the_report_of_a_finished_run_is_that_of_its_result(folder, typed):
    finished = small_run(folder, *typed)
    assert finished.code == 0, finished.err
    assert remade(finished.path) == said(finished, *ALL)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("task", ["triviaqa", "toxigen", "truthfulqa"])
def test_so_is_that_of_other_metrics_and_of_less_being_better(task):
    finished = run_of(task, *(("judge=auto",) if task == "toxigen" else ()))
    assert finished.code == 0, finished.err
    assert remade(finished.path) == said(finished, *ALL)
    lower = finished.result["sadi_bench"]["protocols"].get("lower_is_better", False)
    assert lower == (task == "toxigen")


def older(finished: Finished, place: Path) -> Path:
    """Copy a run as an older version left it, whose grid named neither parameters nor metrics."""
    shutil.copytree(finished.path, place)
    grid = pd.read_parquet(place / "grid.parquet")
    grid.attrs = {key: value for key, value in grid.attrs.items() if key == "answers"}
    grid.to_parquet(place / "grid.parquet", index=False)
    result = finished.result
    result["sadi_bench"]["files"]["grid.parquet"] = sha256(place / "grid.parquet")
    (place / "result.json").write_text(json.dumps(result))
    return place


def test_a_grid_of_an_older_version_gives_the_same_report(folder, tmp_path):
    for name, finished in {"a": small_run(folder), "b": run_of("toxigen", "judge=auto")}.items():
        assert remade(older(finished, tmp_path / name)) == said(finished, *ALL)


def test_the_grid_names_its_parameters_and_its_metrics(folder):
    grid = pd.read_parquet(small_run(folder).path / "grid.parquet")
    assert grid.attrs["parameters"] == parameter_columns(grid) == ["top_k", "strength"]
    metrics = dict.fromkeys(("acc", "acc_norm", "exact_match", "paper_match"), True)
    assert grid.attrs["metrics"] == metrics
    toxic = pd.read_parquet(run_of("toxigen", "judge=auto").path / "grid.parquet")
    assert toxic.attrs["metrics"] == {"toxicity": False}


def test_a_metric_that_no_document_has_is_no_parameter(random_named_grid):
    grid = random_named_grid
    assert parameter_columns(grid) == ["top_k", "strength"]
    grid.attrs.clear()
    assert "unmeasured" in parameter_columns(grid)  # the guess that older grids are left to


@pytest.fixture
def random_named_grid() -> pd.DataFrame:
    cells = {"cell": [0, 1], "top_k": [np.nan, 1], "strength": [np.nan, 5.0]}
    grid = pd.DataFrame({"split": "test", "doc_id": 0, **cells, "acc": 1.0, "unmeasured": np.nan})
    grid.attrs["parameters"] = ["top_k", "strength"]
    return grid
