"""What a finished run shows afterwards: its table, its documents, its place among the others."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from sadi_bench.errors import SettingError
from sadi_bench.models.tiny_random import tiny_random
from sadi_bench.results.reading import load_run
from sadi_bench.results.run_dir import sha256
from sadi_bench.results.run_list import listed_runs
from sadi_bench.results.showing import shown_docs, shown_run
from terminal import Finished, small_run, write_rows
from text_runs import run_of, stand_alone, write_tasks


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("showing")
    write_rows(folder / "boolq")
    write_tasks(folder)
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    stand_alone(folder, monkeypatch)


@pytest.fixture(scope="module")
def finished(folder) -> Finished:
    return small_run(folder, "task.n_test=12")


def changed(finished: Finished, place: Path, grid: pd.DataFrame | None = None, **texts) -> Path:
    """Copy a run with another grid, or with texts beside its documents."""
    shutil.copytree(finished.path, place)
    if grid is not None:
        grid.to_parquet(place / "grid.parquet", index=False)
    docs = [json.loads(line) for line in (place / "docs.jsonl").read_text().splitlines()]
    (place / "docs.jsonl").write_text("".join(json.dumps(doc | texts) + "\n" for doc in docs))
    result = finished.result
    result["sadi_bench"]["files"] |= {
        name: sha256(place / name) for name in ("docs.jsonl", "grid.parquet")
    }
    (place / "result.json").write_text(json.dumps(result))
    return place


def test_the_table_is_the_one_that_the_run_printed(finished):
    assert f"{shown_run(finished.path)}\n" == finished.out


@pytest.mark.parametrize(("metric", "shown"), [("paper", True), ("acc", False)])
def test_the_table_shows_the_papers_number_where_the_settings_are_the_papers(folder, metric, shown):
    """A tiny model in a folder of Llama 2's name is taken for it."""
    llama = folder / "Llama-2-7b-chat-hf"
    for part in tiny_random(0):
        part.save_pretrained(llama)
    typed = ("method.top_k=2", "method.strength=50", f"select_by={metric}", "model.dtype=float32")
    run = small_run(folder, "model=llama2-7b", f"model.pretrained={llama}", *typed)
    assert run.out == f"{shown_run(run.path)}\n"
    assert ("paper: arXiv 2410.12299" in run.out) == ("70.52" in run.out) == shown


@pytest.fixture(scope="module")
def turned(finished, tmp_path_factory) -> tuple[Path, list[int], list[int]]:
    """A run whose held-out cell turned three documents right and two wrong; these documents."""
    grid = pd.read_parquet(finished.path / "grid.parquet")
    cell = finished.result["sadi_bench"]["protocols"]["heldout"]["cell"]
    right, wrong = ([*grid.loc[grid["split"] == "test", "doc_id"].unique()[some]]
                    for some in (slice(0, 3), slice(5, 7)))  # fmt: skip
    test = grid["split"] == "test"
    grid.loc[test & grid["cell"].isin([0, cell]), "acc"] = 1.0
    grid.loc[test & (grid["cell"] == 0) & grid["doc_id"].isin(right), "acc"] = 0.0
    grid.loc[test & (grid["cell"] == cell) & grid["doc_id"].isin(wrong), "acc"] = 0.0
    return changed(finished, tmp_path_factory.mktemp("turned") / "run", grid), right, wrong


def test_the_documents_that_steering_turned_are_counted_and_shown(turned):
    path, right, wrong = turned
    text = shown_docs(path, "flipped", limit=99)
    assert "\n3 of 12 turned right, 2 turned wrong (acc)\n" in text
    headings = {line for line in text.splitlines() if line.startswith("document ")}
    assert headings == {f"document {doc}: wrong → right" for doc in right} | {
        f"document {doc}: right → wrong" for doc in wrong
    }


def test_all_documents_are_shown_where_all_are_asked_for(turned):
    text = shown_docs(turned[0], "all", limit=99)
    assert text.count("\ndocument ") == 12
    assert text.count(": wrong → right\n") == 3
    assert "3 of 12 turned right, 2 turned wrong (acc)" in text
    assert "documents are shown" not in text


def test_a_document_has_its_answers_with_their_log_probabilities(finished, tmp_path):
    texts = {"prompt": f"{'far ' * 99}the end\nAnswer:", "choices": ["No", "Yes"], "row": {}}
    path = changed(finished, tmp_path / "run", **texts)
    cell = finished.result["sadi_bench"]["protocols"]["heldout"]["cell"]
    grid = pd.read_parquet(path / "grid.parquet").query("split == 'test'")
    first = grid[grid["doc_id"] == grid["doc_id"].iloc[0]].set_index("cell")
    text = shown_docs(path, "all", 1)
    heading, prompt, header, *answers, predicted = text[text.index("document ") :].splitlines()[:6]
    assert heading.startswith(f"document {first['doc_id'][0]}: ")
    assert prompt.startswith("  prompt        …") and prompt.endswith("far the end Answer:")
    assert header.split() == ["answers,", "*", "right", "before", "after"]
    for number, (line, name) in enumerate(zip(answers, ["No", "Yes"], strict=True)):
        values = [f"{first['choice_logprobs'][c][number]:.3f}" for c in (0, cell)]
        mark = ["*"] if number == first["gold"][0] else []
        assert line.split() == [*mark, name, *values]
    said = [json.dumps(first["predicted"][c], ensure_ascii=False) for c in (0, cell)]
    assert predicted == f"  predicted     {said[0]} → {said[1]}"
    assert "docs.jsonl has no texts" not in text


def test_a_run_without_texts_says_what_is_missing_and_names_answers_all_the_same(
    finished, tmp_path
):
    path = changed(finished, tmp_path / "run")
    docs = [json.loads(line) for line in (path / "docs.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in doc.items() if k not in ("prompt", "choices")} for doc in docs]
    (path / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in kept))
    result = json.loads((path / "result.json").read_text())
    result["sadi_bench"]["files"]["docs.jsonl"] = sha256(path / "docs.jsonl")
    (path / "result.json").write_text(json.dumps(result))
    text = shown_docs(path, "all", 1)
    assert "docs.jsonl has no texts, since an older version wrote it: prompts are missing." in text
    assert " Yes " in text


def test_no_line_is_wider_than_100_columns_whatever_the_texts_are(finished, tmp_path):
    wide = ["選" * 99, "\x1b[2Jcleared\r\n" * 20]
    path = changed(finished, tmp_path / "run", prompt="前提\u2028\x07" * 300, choices=wide)
    lines = shown_docs(path, "all", 99).split("\n")
    assert all(line.isprintable() for line in lines)
    assert max(len(line) + sum(letter in "選前提" for letter in line) for line in lines) <= 100
    assert any("選選" in line for line in lines) and any("cleared" in line for line in lines)


def test_no_more_documents_are_shown_than_asked_for(finished):
    text = shown_docs(finished.path, "all", limit=2)
    assert text.count("\ndocument ") == 2
    assert text.endswith("2 of 12 documents are shown; limit=… shows more.\n")


@pytest.mark.parametrize(
    ("which", "limit", "complaint"),
    [("flips", 1, "docs=flips: unknown. Did you mean flipped"), ("all", 0, "limit=0: choose at l")],
)
def test_a_value_that_is_none_is_refused(finished, which, limit, complaint):
    with pytest.raises(SettingError, match=complaint):
        shown_docs(finished.path, which, limit)


def test_a_run_that_steers_nothing_has_no_turned_documents_but_shows_all(folder):
    path = small_run(folder, "method=none").path
    with pytest.raises(SettingError, match="this run steers nothing, so it turned no document; ch"):
        shown_docs(path)
    text = shown_docs(path, "all", 1)
    assert "before, the unsteered model; the run steers nothing." in text
    assert "after" not in text


def test_where_there_is_no_held_out_cell_the_oracles_is_taken_and_said(folder):
    path = small_run(folder, "protocol=paper").path
    text = " ".join(shown_docs(path, "all", 1).split())
    assert "after, the oracle cell (top_k=" in text
    assert "There is no held-out cell: this one was chosen on these very documents." in text


def test_a_metric_that_is_no_number_a_document_gives_way_to_acc_and_it_is_said(folder):
    text = " ".join(shown_docs(small_run(folder, "select_by=auc").path).split())
    assert "(acc; auc, which chose the cell, is no number a document)" in text


def test_of_random_draws_the_first_ones_cell_is_shown_and_said(folder):
    drawn = ("method=random-head", "method.top_k=2", "method.strength=[5,9]", "method.draws=2")
    text = " ".join(shown_docs(small_run(folder, *drawn).path).split())
    assert "the held-out cell of the first of 2 draws (cell " in text


def test_written_answers_are_shown_before_and_after():
    text_run = run_of("triviaqa")
    cell = text_run.result["sadi_bench"]["protocols"]["heldout"]["cell"]
    written = load_run(text_run.path).texts
    some = next(row for row in written if row["split"] == "test")
    after = next(r for r in written if r["doc_id"] == some["doc_id"] and r["cell"] == cell
                 and r["split"] == "test")  # fmt: skip
    text = shown_docs(text_run.path, "all", 1)
    assert f"document {some['doc_id']}: " in text
    for when, row in (("before", some), ("after", after)):
        (line,) = [line for line in text.splitlines() if line.startswith(f"  text {when}")]
        head = "".join(c if c.isprintable() else " " for c in row["text"]).split()[:1]
        assert line.split()[2:3] == head or not head
    assert "  prompt " in text
    assert "log-prob" not in text


def test_less_is_better_where_the_metric_says_so():
    text = shown_docs(run_of("toxigen", "judge=auto").path)
    assert "became better, " in text
    assert "(toxicity)" in text


def test_a_metric_between_0_and_1_is_shown_as_a_number():
    text = shown_docs(run_of("truthfulqa", "select_by=mc2").path, "all", 99)
    assert "became better, " in text
    assert ": MC2 1.000 → " in text
    assert "  text before " in text  # its texts are written by the headline cells


def test_runs_are_listed_in_the_order_they_were_made(folder, tmp_path):
    runs = f"runs_dir={tmp_path}"
    made = [small_run(folder, *typed, runs) for typed in ((), ("method=none",), ("seed=1",))]
    (tmp_path / "tables").mkdir()
    lines = listed_runs(tmp_path).splitlines()
    assert [line.split()[0] for line in lines] == ["run", *(run.path.name for run in made)]
    assert lines[0].split() == ["run", "task", "model", "method", "protocol", "unsteered", "→",
                                "held-out", "date"]  # fmt: skip
    report = made[0].result["sadi_bench"]["protocols"]
    values = [f"{100 * report[r]['metrics']['acc']['value']:.1f}" for r in ("unsteered", "heldout")]
    first = ["boolq", "tiny-random", "sadi-head", "heldout", "acc", values[0], "→", values[1]]
    assert lines[1].split()[1:-1] == first
    assert "→" not in lines[2]
    assert max(map(len, lines)) <= 100


def test_a_damaged_run_is_named_below_the_others_and_long_names_are_shortened(folder, tmp_path):
    path = small_run(folder, f"runs_dir={tmp_path}").path
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "result.json").write_text("{")
    named = json.loads((path / "result.json").read_text())
    named["sadi_bench"] |= {"model": "a-model-" * 9, "method": "sadi-head patch=inflight reach=x"}
    (path / "result.json").write_text(json.dumps(named))
    header, row, complaint = listed_runs(tmp_path).splitlines()
    assert len(row) <= 100
    assert "…" in row
    assert complaint.startswith(f"{broken}/result.json: cannot be read")
    with pytest.raises(SettingError, match="no finished run there"):
        listed_runs(folder / "boolq")
