"""The paper's figures as files: which are drawn, from which runs, and where they go."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from sadi_bench.composing import composed as settings
from sadi_bench.errors import SettingError
from sadi_bench.identity import plain
from sadi_bench.results.paper.table_runs import result_at
from sadi_bench.results.paper.write_figures import write_figures
from sadi_bench.results.run_dir import sha256
from terminal import small_run, write_rows
from text_runs import stand_alone

SITES = {"head": 2, "neuron": 3, "hidden": 2}  # a top_k of the released grid
DRAWN = ("figure2", "figure3", "figure4", "figure5", "figures6-7")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    write_rows(folder / "boolq")
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    stand_alone(folder, monkeypatch)


@pytest.fixture(scope="module")
def runs(folder) -> Path:
    """SADI's three runs as if they were of BoolQ, COPA (with two numbers of pairs), StoryCloze."""
    runs = folder / "runs"
    tasks = {name: plain(settings(f"task={name}"))["task"] for name in ("copa", "storycloze")}
    for site, top_k in SITES.items():
        typed = (f"method=sadi-{site}", f"method.top_k={top_k}", "method.strength=[10,50]")
        made = small_run(folder, *typed, "select_by=paper", f"runs_dir={runs}").path
        copied(made, tasks["copa"], pairs=8)
        copied(made, tasks["copa"], pairs=4)
        copied(made, tasks["storycloze"], pairs=8)
    return runs


def copied(run: Path, task: dict, pairs: int) -> None:
    """Copy a run and let its config and result say that it is of another task and size."""
    copy = run.with_name(f"{run.name}-{task['name']}-{pairs}")
    shutil.copytree(run, copy)
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["task"] = task | {"n_pairs": pairs}
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    result = json.loads((copy / "result.json").read_text())
    result["sadi_bench"]["counts"]["pairs"] = pairs
    result["sadi_bench"]["files"]["config.yaml"] = sha256(copy / "config.yaml")
    (copy / "result.json").write_text(json.dumps(result))


def test_every_figure_is_drawn_beside_the_runs(runs):
    pytest.importorskip("matplotlib")
    wanted = [str(runs / "figures" / f"{name}-tiny-random.png") for name in DRAWN]
    for _ in range(2):  # the folder of figures is no run
        assert write_figures(runs) == wanted
    assert all(Path(file).read_bytes().startswith(b"\x89PNG") for file in wanted)
    assert {file.name for file in (runs / "figures").iterdir()} == {Path(w).name for w in wanted}


def test_a_figure_without_runs_is_left_out(runs, tmp_path):
    pytest.importorskip("matplotlib")
    for run in runs.glob("*-storycloze-8"):
        (tmp_path / "runs" / run.name).mkdir(parents=True)
        shutil.copytree(run, tmp_path / "runs" / run.name, dirs_exist_ok=True)
    names = {Path(file).name for file in write_figures(tmp_path / "runs", tmp_path / "out")}
    assert names == {f"{n}-tiny-random.png" for n in ("figure2", "figure3", "figures6-7")}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names


def test_a_figure_of_more_documents_is_not_replaced(runs, tmp_path):
    pytest.importorskip("matplotlib")
    write_figures(runs, tmp_path / "out")
    before = (tmp_path / "out" / "figure2-tiny-random.png").read_bytes()
    for run in runs.glob("*-storycloze-8"):
        shutil.copytree(run, tmp_path / "fewer" / run.name)
    kept, *written = write_figures(tmp_path / "fewer", tmp_path / "out")
    assert kept == (
        f"{tmp_path}/out/figure2-tiny-random.png: not replaced: it shows runs with 12 test "
        "documents in all, these have 6; delete the file, or measure as many."
    )
    assert (tmp_path / "out" / "figure2-tiny-random.png").read_bytes() == before
    assert written[0] == f"{tmp_path}/out/figure3-tiny-random.png"  # it shows no other task


def test_a_picture_that_this_program_did_not_draw_is_not_replaced(runs, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "figure2-tiny-random.png").write_text("no picture")
    kept, *_ = write_figures(runs, tmp_path)
    assert kept.endswith("not replaced: this program did not draw it; delete it, or choose to=…")


def test_the_curves_are_those_of_the_runs(runs):
    pytest.importorskip("matplotlib")
    from sadi_bench.results.paper.drawn_curves import pairs, strengths

    results = {path.name: result_at(path) for path in runs.iterdir() if "figures" not in path.name}
    figure = strengths("tiny-random", results, runs).figure
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[0] == "copa, tiny-random, test n = 6"
    assert "copa, paper (llama2-7b-chat)" in titles
    curve, unsteered = figure.axes[0].lines
    assert curve.get_xdata().tolist() == [10, 50]
    assert (curve.get_label(), unsteered.get_label()) == ("K = 2", "unsteered")
    heads = pairs("tiny-random", results, runs).figure.axes[0].lines[0]
    assert heads.get_xdata().tolist() == [4, 8]


def test_nothing_to_draw_is_refused_with_what_to_do(folder, runs, tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(SettingError, match=f"runs_dir={tmp_path}: no finished run there"):
        write_figures(tmp_path)
    with pytest.raises(SettingError, match="model=other: unknown"):
        write_figures(runs, model="other")
    small_run(folder, "method=none", f"runs_dir={tmp_path}")
    with pytest.raises(SettingError, match="no figure of the paper shows its 1 runs"):
        write_figures(tmp_path)
    assert not (tmp_path / "figures").exists()


def test_a_missing_matplotlib_is_said_with_what_installs_it(runs, monkeypatch):
    for name in ("drawn_curves", "drawn_elements", "figure_files"):
        monkeypatch.delitem(sys.modules, f"sadi_bench.results.paper.{name}", raising=False)
        monkeypatch.delattr(f"sadi_bench.results.paper.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SettingError, match=r"pip install 'sadi-bench\[bench\]'"):
        write_figures(runs)
