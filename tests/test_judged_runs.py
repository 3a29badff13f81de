"""Judges of whole runs: on the way where they give the metric, else in a step of its own."""

import json
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from damage import flip
from sadi_bench.composing import composed as settings
from sadi_bench.experiment import run
from sadi_bench.judging import decisions
from sadi_bench.results.reading import load_run
from sadi_bench.scoring.judges.base import Generation
from sadi_bench.scoring.judges.choosing import judge_of
from sadi_bench.scoring.judges.spec import JudgeSpec
from sadi_bench.session import Session
from scoring.judges.judge_cases import write_annotated
from tasks.open_ended_files import write_toxigen
from terminal import command, small_run, write_rows
from text_runs import arguments, fits, letters, refused, run_of, stand_alone, texts_of, write_tasks


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_tasks(folder)
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    stand_alone(folder, monkeypatch)


def test_a_judge_comes_afterwards_and_writes_its_decisions_beside_the_texts(folder):
    path = run_of("truthfulqa", "judge=none").path
    before = load_run(path)
    times = {f.name: (f.stat().st_mtime_ns, f.stat().st_ino) for f in path.iterdir()}
    judged = run_of("truthfulqa", "judge=truthfulqa-offline")
    assert judged.path == path
    after = load_run(path)
    changed = {f.name for f in path.iterdir()
               if times.get(f.name) != (f.stat().st_mtime_ns, f.stat().st_ino)}  # fmt: skip
    assert changed == {"judged-truthfulqa-offline.jsonl", "result.json"}
    said = [row.pop("judged")["truthfulqa-offline"] for row in after.texts]
    assert after.texts == before.texts
    assert set(said[0]) == {"true", "true_probability", "info", "info_probability"}

    judge = judge_of(JudgeSpec("truthfulqa-offline"), str(folder / "truthfulqa"))
    asked = [Generation(row["question"], row["text"]) for row in after.texts]
    for score, found in judge.judge(asked).items():
        assert [row[score] for row in said] == pytest.approx(found.tolist())
    rows = after.result["sadi_bench"]["judged"]["truthfulqa-offline"]["rows"]
    for row, protocol in after.result["sadi_bench"]["protocols"].items():
        if row in rows:
            true = [s["true"] for s, t in zip(said, after.texts, strict=True)
                    if t["cell"] == protocol["cell"]]  # fmt: skip
            assert rows[row]["true"]["value"] == np.mean(true)
    assert "judge=truthfulqa-offline" in judged.out and "true × info %" in judged.out
    assert "offline stand-ins" in judged.out
    assert fits(judged)

    third = run_of("truthfulqa", "judge=truthfulqa-offline")
    assert third.out == judged.out == run_of("truthfulqa", "judge=none").out
    assert load_run(path).result == after.result


def test_another_judge_adds_its_decisions_to_those_of_the_first(folder):
    run_of("truthfulqa", "judge=truthfulqa-offline")
    second = run_of("truthfulqa", "judge=toxigen-offline", f"judge.data_dir={folder / 'toxigen'}")
    assert second.code == 0, second.err
    kinds = {"truthfulqa-offline", "toxigen-offline"}
    assert set(second.result["sadi_bench"]["judged"]) == kinds
    assert {frozenset(row["judged"]) for row in load_run(second.path).texts} == {frozenset(kinds)}
    assert second.out.count("judge=") == 2
    assert fits(second)
    known = second.result["sadi_bench"]["judged"]
    write_annotated(folder / "other", letters(1))
    third = run_of("truthfulqa", "judge=toxigen-offline", f"judge.data_dir={folder / 'other'}")
    now = third.result["sadi_bench"]["judged"]
    assert now["truthfulqa-offline"] == known["truthfulqa-offline"]
    assert now["toxigen-offline"]["judge"] != known["toxigen-offline"]["judge"]


def edit_judge(path: Path, kind: str, **identity: str) -> None:
    """Let result.json say that another judge decided."""
    result = json.loads((path / "result.json").read_text())
    result["sadi_bench"]["judged"][kind]["judge"] |= identity
    (path / "result.json").write_text(json.dumps(result))


def test_other_code_of_a_judge_judges_again_and_leaves_the_run_as_it_is():
    kind = "truthfulqa-offline"
    first = run_of("truthfulqa", f"judge={kind}")
    known, date = first.result["sadi_bench"]["judged"][kind], first.result["date"]
    edit_judge(first.path, kind, code="0" * 64)
    kept = run_of("truthfulqa", f"judge={kind}", "keep=true")
    assert kept.result["sadi_bench"]["judged"][kind]["judge"]["code"] == "0" * 64
    (first.path / f"judged-{kind}.jsonl").write_text("of a judge that was killed\n")
    again = run_of("truthfulqa", f"judge={kind}")
    assert "finished before" in again.err
    assert all(kind in row["judged"] for row in load_run(again.path).texts)
    assert again.result["sadi_bench"]["judged"][kind] == known
    assert again.result["date"] == date


def test_damaged_decisions_are_made_again_and_the_run_is_not():
    kind = "truthfulqa-offline"
    first = run_of("truthfulqa", f"judge={kind}")
    decided = first.path / f"judged-{kind}.jsonl"
    whole, date = decided.read_bytes(), first.result["date"]
    flip(decided)
    shown = command("show", str(first.path))
    assert refused(shown, f"{decided}: cannot be read: not the file that was written")
    assert f"Judge the run again with judge={kind}." in shown.complaints[0]
    again = run_of("truthfulqa", f"judge={kind}")
    assert (again.code, again.out, again.result["date"]) == (0, first.out, date)
    assert f"{decided}: cannot be read" in again.err
    assert decided.read_bytes() == whole


def test_a_text_that_overflowed_is_given_the_worst_by_a_judge_that_comes_afterwards(folder):
    kind = "toxigen-offline"
    judge = (f"judge={kind}", f"judge.data_dir={folder / 'toxigen'}")
    overflows = ("model.dtype=float16", "method.top_k=4", "method.strength=[1e7,9]")
    found = run_of("triviaqa", *overflows, *judge)
    texts = load_run(found.path).texts
    lost = [row for row in texts if not row["finite"]]
    assert 0 < len(lost) < len(texts)
    for row in lost:
        assert row["text"] == ""
        assert row["judged"][kind] == {"toxicity": 1.0, "toxicity_probability": 1.0}


def test_a_text_that_overflowed_is_toxic_where_one_that_was_meant_to_be_empty_is_not(folder):
    rows = [{"question": "q", "text": "", "finite": finite} for finite in (True, False)]
    judge = judge_of(JudgeSpec("toxigen-offline"), str(folder / "toxigen"))
    found = decisions(judge, pd.DataFrame(rows))
    assert found["toxicity"].tolist() == found["toxicity_probability"].tolist() == [0.0, 1.0]


def test_toxicity_is_what_the_judge_says_and_is_part_of_the_run(folder):
    finished = run_of("toxigen")
    assert fits(finished)
    texts = texts_of(finished)
    judge = judge_of(JudgeSpec("toxigen-offline"), str(folder / "toxigen"))
    asked = [Generation(row.question, row.text) for row in texts.itertuples()]
    expected = judge.judge(asked)
    assert texts["toxicity_probability"].tolist() == pytest.approx(
        expected["toxicity_probability"].tolist()
    )
    assert texts["toxicity"].tolist() == expected["toxicity"].tolist()
    assert 0 < texts["toxicity"].mean() < 1
    ours, test = finished.result["sadi_bench"], texts[texts["split"] == "test"]
    means = test.groupby("cell")["toxicity"].mean()
    assert ours["protocols"]["unsteered"]["metrics"]["toxicity"]["value"] == means[0]
    best = texts[texts["split"] == "select"].groupby("cell")["toxicity"].mean().drop(0).min()
    assert ours["protocols"]["heldout"]["selection"]["value"] == best
    assert len(ours["groups"]["group"]["toxicity"]) == 14 + 1

    assert run_of("toxigen", "judge=toxigen-offline").path == finished.path
    other = folder / "another-judge"
    write_annotated(other, letters(2))
    assert (
        run_of("toxigen", "judge=toxigen-offline", f"judge.data_dir={other}").path != finished.path
    )


def test_nothing_but_the_loader_holds_the_model_when_a_judge_loads():
    session = Session()
    run(settings(*arguments("truthfulqa", "force=true", method="tda")), session)
    (kept,) = session.models._held.values()
    network = weakref.ref(kept.network)
    del kept
    session.models.clear()  # as is done before a judge is loaded
    assert network() is None


def test_a_judge_where_nothing_is_written_is_refused_before_anything_runs(folder):
    write_rows(folder / "boolq")
    judge = ("judge=toxigen-offline", f"judge.data_dir={folder / 'toxigen'}")
    found = small_run(folder, *judge)
    assert refused(found, "judge=toxigen-offline: task=boolq asks for no texts, so there is nothi")
    assert "tiny-random" not in found.err


def test_toxigen_without_what_its_judge_is_trained_on_is_refused(folder):
    write_toxigen(folder / "bare")
    (folder / "bare" / "annotated_train.csv").unlink()
    found = run_of("toxigen", "task.data_dir=bare")
    assert refused(found, "task.data_dir=bare: ") or refused(found, "judge=toxigen-offline: ")
    assert "annotated_train.csv" in found.complaints[0]
