"""also=: the chosen cell on other tasks' test rows."""

import json
from pathlib import Path

import pandas as pd
import pytest

import sadi_bench as sb
from sadi_bench.results.exporting import export_run
from sadi_bench.stages import score_task
from terminal import Finished, small_run, write_rows

HERE = "method.top_k=[3,1]", "method.strength=[5,20]", "method=sadi-head"


def write_sentences(folder: Path) -> None:
    """Write SST-2's files: a label and a sentence a line."""
    folder.mkdir(parents=True)
    for name, count in (("train", 12), ("dev", 6), ("test", 9)):
        lines = [f"{i % 2} {name} sentence number {i}\n" for i in range(count)]
        (folder / f"stsa.binary.{name}").write_text("".join(lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    write_rows(folder / "boolq")
    write_sentences(folder / "sst2")
    return folder


def also(folder: Path, **settings: object) -> str:
    typed = {"name": "sst2", "data_dir": str(folder / "sst2"), **settings}
    inside = ",".join(f"{key}: {value}" for key, value in typed.items())
    return f"also=[{{{inside}}}]"


@pytest.fixture(scope="module")
def finished(folder) -> Finished:
    found = small_run(folder, *HERE, also(folder))
    assert found.code == 0, found.err
    return found


def test_the_chosen_cell_is_measured_beside_the_unsteered_model(finished, folder):
    found = finished.result["sadi_bench"]["also"]["sst2"]
    run = sb.load_run(finished.path)
    assert (found["row"], found["cell"]) == ("heldout", run.steering.origin.chosen["heldout"])
    frame = pd.read_parquet(finished.path / "also-sst2.parquet")
    assert set(frame["split"]) == {"test"} and set(frame["cell"]) == {0, 1}
    for cell, row in ((0, "unsteered"), (1, "steered")):
        acc = frame.loc[frame["cell"] == cell, "acc"].mean()
        assert found[row]["acc"]["value"] == pytest.approx(acc)
    lm = sb.load_model("tiny-random")
    task = sb.load_task("sst2", data_dir=str(folder / "sst2"))
    whole = score_task(lm, task, run.steering).whole()
    for cell, there in ((0, 0), (1, found["cell"])):
        ours = frame[frame["cell"] == cell].set_index("doc_id")["acc"]
        theirs = whole[(whole["split"] == "test") & (whole["cell"] == there)]
        theirs = theirs.set_index("doc_id")["acc"].loc[ours.index]
        assert ours.tolist() == theirs.tolist()


def test_no_more_rows_are_scored_than_of_the_runs_own_task(finished):
    n_test = finished.result["sadi_bench"]["counts"]["test"]
    assert finished.result["sadi_bench"]["also"]["sst2"]["n"] == min(9, n_test)


def test_the_table_has_a_line_of_it_and_fits(finished):
    (header,) = [line for line in finished.out.splitlines() if line.startswith("elsewhere")]
    assert "held-out cell" in header
    assert any(line.startswith("sst2  ") for line in finished.out.splitlines())
    assert max(map(len, finished.out.splitlines()[:-1])) <= 100


def test_its_file_is_one_of_the_runs(finished):
    files = finished.result["sadi_bench"]["files"]
    assert "also-sst2.parquet" in files
    assert "also" in sb.load_run(finished.path).report


def test_other_tasks_make_another_run_and_none_leave_it_as_it_was(finished, folder):
    plain = small_run(folder, *HERE)
    assert plain.path != finished.path
    fewer = small_run(folder, *HERE, also(folder, n_test=3))
    assert fewer.path != finished.path
    assert fewer.result["sadi_bench"]["also"]["sst2"]["n"] == 3
    assert "also:" not in (plain.path / "config.yaml").read_text()
    ours, theirs = (json.loads((p / "result.json").read_text()) for p in (plain.path, fewer.path))
    assert ours["results"] == theirs["results"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("also=[boolq]", "also=boolq: it is measured already"),
        ("also=[nowhere]", "task=nowhere: unknown"),
        ("also=[3]", "also=3: name a task"),
        ("also=[{n_test: 3}]", "name a task"),
    ],
)
def test_what_is_no_other_task_is_one_line(folder, typed, message):
    found = small_run(folder, *HERE, typed)
    assert found.code == 2
    assert len(found.complaints) == 1 and message in found.complaints[0]


def test_constants_of_one_tasks_answers_are_not_taken_elsewhere(folder):
    found = small_run(folder, "method=calibrate-prior", also(folder))
    assert found.code == 2
    assert "a constant an answer belongs to the answers of task=boolq" in found.complaints[-1]


def test_an_export_says_what_it_does_elsewhere(finished, tmp_path):
    export_run(finished.path, str(tmp_path / "exported"))
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "The same cell on the test rows of other tasks:" in card
    assert "sst2" in card
