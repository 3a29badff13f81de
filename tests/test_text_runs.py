"""Whole runs of tasks whose answers are written, recomputed from their directories."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sadi_bench.models.tiny_random import byte_tokenizer
from sadi_bench.results.reading import load_run
from sadi_bench.results.selection import select_cell
from sadi_bench.tasks.metrics import normalised_answer
from tasks.open_ended_files import write_triviaqa
from terminal import Finished, command
from text_runs import (
    METHODS,
    SHORT,
    SIZES,
    fits,
    refused,
    run_of,
    stand_alone,
    texts_of,
    write_tasks,
)

FILE = "triviaqa_sm_sub.jsonl"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_tasks(folder)
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    stand_alone(folder, monkeypatch)


def trivia_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


@pytest.fixture(scope="module")
def known(folder) -> Path:
    """A folder of questions whose aliases are what some cells write, so that some answers match."""
    with pytest.MonkeyPatch.context() as patches:
        patches.chdir(folder)
        texts = texts_of(run_of("triviaqa", "runs_dir=first", "task.n_test_cells=null"))
    said = {(row.question, row.cell): row.text for row in texts.itertuples()}
    (folder / "known").mkdir()
    write_triviaqa(folder / "known" / "triviaqa")
    rows = trivia_rows(folder / "known" / "triviaqa")
    for i, row in enumerate(rows):
        written = said.get((f"What is thing {i}?", (0, 2, 3)[i % 3]), "")
        row["aliases"] += [written] * bool(normalised_answer(written))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "known" / "triviaqa" / FILE).write_text(lines)
    return folder / "known" / "triviaqa"


def known_run(known: Path, *typed: str) -> Finished:
    return run_of("triviaqa", f"task.data_dir={known}", "task.n_test_cells=2", *typed)


def test_every_document_and_cell_kept_has_one_row_and_the_file_a_digest(known):
    finished = known_run(known)
    run, texts = load_run(finished.path), texts_of(finished)
    assert "generations.jsonl" in run.result["sadi_bench"]["files"]
    keys = ["split", "doc_id", "cell"]
    pd.testing.assert_frame_equal(texts[keys], run.grid[keys])
    assert not texts.duplicated(keys).any()
    sizes = texts.groupby(["split", "cell"]).size().unstack(fill_value=0)
    assert sizes.loc["select"].tolist() == [4] * 5
    heldout = run.result["sadi_bench"]["protocols"]["heldout"]["cell"]
    assert heldout == select_cell(run.grid, "select", "exact_match").cell
    assert sizes.loc["test", [0, heldout]].tolist() == [6, 6]
    assert sorted(sizes.loc["test"]) == [0, 0, 6, 6, 6]
    assert "that the select split left in the race" in " ".join(finished.out.split())


def test_exact_match_follows_from_the_texts_and_lm_eval_counts_the_same(known):
    finished = known_run(known)
    rows, texts = {row["context"]: row for row in trivia_rows(known)}, texts_of(finished)
    for row in texts.itertuples():
        answers = [rows[row.context]["answer"], *rows[row.context]["aliases"]]
        matches = normalised_answer(row.text) in {normalised_answer(answer) for answer in answers}
        assert row.exact_match == float(matches)
    means = texts[texts["split"] == "test"].groupby("cell")["exact_match"].mean()
    assert means.nunique() > 1
    for row, suffix in (("unsteered", ""), ("heldout", "_heldout"), ("oracle", "_oracle")):
        reported = finished.result["sadi_bench"]["protocols"][row]
        harness = finished.result["results"][f"triviaqa{suffix}"]["exact_match,none"]
        value = reported["metrics"]["exact_match"]["value"]
        assert harness == value == pytest.approx(means[reported["cell"]])


def test_every_cell_writes_where_no_race_is_run(known):
    for typed in ("task.n_test_cells=null", "protocol=paper"):
        own = ("model=tiny-random", "task=triviaqa", f"task.data_dir={known}", "runs_dir=runs",
               "method=sadi-head", SHORT, *METHODS["sadi-head"])  # fmt: skip
        finished = command(*own, "task.n_test=6", typed)
        test = texts_of(finished).query("split == 'test'")
        assert sorted(test["cell"].unique()) == [0, 1, 2, 3, 4]
        assert "left in the race" not in " ".join(finished.out.split())


def test_a_second_run_shows_the_first_and_force_writes_the_same(known):
    first, again = known_run(known), known_run(known)
    assert "this run was finished before" in again.err
    assert again.out == first.out
    before = (first.path / "generations.jsonl").read_bytes()
    forced = known_run(known, "force=true")
    assert (forced.path / "generations.jsonl").read_bytes() == before
    assert forced.out == first.out


def test_the_unsteered_run_has_the_texts_of_cell_0_of_its_neighbour(known):
    steered, alone = (
        texts_of(known_run(known)),
        texts_of(run_of("triviaqa", f"task.data_dir={known}", method="none")),
    )
    expected = steered[steered["cell"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, expected)


TASKS_OF_METHODS = [("triviaqa", method) for method in METHODS]
TASKS_OF_METHODS += [("truthfulqa", method) for method in ("none", "iti", "tda")]


@pytest.mark.parametrize(("task", "method"), TASKS_OF_METHODS)
def test_every_method_writes_and_its_steering_shows(task, method):
    finished = run_of(task, method=method)
    assert finished.code == 0, finished.err
    assert fits(finished)
    texts = texts_of(finished)
    said = texts[texts["split"] == "test"].pivot(index="doc_id", columns="cell", values="text")
    assert method == "none" or any((said[cell] != said[0]).any() for cell in said)
    told = finished.result["sadi_bench"]["texts"]
    assert told["unsteered"]["n"] == 6
    assert all(measured["perplexity"] > 1 for measured in told.values())


def test_mc_metrics_follow_from_the_log_probabilities(folder):
    questions = json.loads((folder / "truthfulqa" / "mc_task.json").read_text())
    true = {q["question"]: sum(q["mc2_targets"].values()) for q in questions}
    run, tokenizer = load_run(run_of("truthfulqa").path), byte_tokenizer()
    asked = {}
    for doc in run.docs:
        prompt = tokenizer.decode(doc["prompt_tokens"])
        asked[doc["split"], doc["doc_id"]] = prompt.removeprefix("Q: ").removesuffix("\nA:")
    for row in run.grid.itertuples():
        n = true[asked[row.split, row.doc_id]]
        right, wrong = row.choice_logprobs[:n], row.choice_logprobs[n:]
        assert row.mc1 == float(right[0] > max(wrong))
        assert row.mc2 == pytest.approx(
            sum(map(math.exp, right)) / sum(map(math.exp, [*right, *wrong]))
        )
        assert row.mc3 == pytest.approx(np.mean(right > max(wrong)))


def test_demonstrations_come_from_the_identify_split_alone():
    run = load_run(run_of("triviaqa", "task.fewshot=2").path)
    tokenizer = byte_tokenizer()
    prompts = [tokenizer.decode(doc["prompt_tokens"]) for doc in run.docs]
    pairs = [pair["prompt"] for pair in run.pairs]
    own = {prompt.split("Question: ")[-1] for prompt in pairs}
    for prompt in [*prompts, *pairs]:
        *shown, asked = prompt.split("Question: ")[1:]
        assert len(set(shown)) == 2
        assert {text.split("Answer:")[0] + "Answer:" for text in shown} <= own - {asked}
    assert not own & {prompt.split("Question: ")[-1] for prompt in prompts}


@pytest.mark.parametrize(
    ("task", "typed", "start"),
    [
        ("triviaqa", "judge=auto", "judge=auto: no judge is known for task=triviaqa; choose"),
        ("triviaqa", "judge=toxigen-offline", "judge=toxigen-offline: toxigen-offline is trained"),
        (
            "triviaqa",
            "select_by=acc",
            "select_by=acc: a cell of task=triviaqa can be chosen by exact_match",
        ),
        ("triviaqa", "method=calibrate", "task=triviaqa: its answers differ from document to"),
        ("triviaqa", "method=calibrate-prior", "method=calibrate: a side of the pairs is blank, "),
        ("triviaqa", "task.n_test_cells=0", "task.n_test_cells=0: choose at least 1, or null"),
        ("triviaqa", "task.generation_kwargs.do_sample=true", "task.generation_kwargs.do_sample"),
        ("triviaqa", "+task.generation_kwargs.do_sample=true", "task.generation_kwargs: asks for"),
        ("triviaqa", "+task.generation_kwargs.temperature=0.5", "task.generation_kwargs: asks for"),
        ("triviaqa", "task.generation_kwargs.max_gen_toks=4090", "task.generation_kwargs.max_gen_"),
        ("truthfulqa", "task.generation_kwargs.max_gen_toks=4090", "task.generation_kwargs.max_g"),
        ("truthfulqa", "judge=truthfulqa", "judge.truth=allenai/truthfulqa-truth-judge-llama2-7B"),
        ("toxigen", "judge=none", "judge=none: task=toxigen measures toxicity, which it does not"),
        ("toxigen", "judge=truthfulqa-offline judge.data_dir=truthfulqa", "judge=truthfulqa-off"),
    ],
)
def test_a_mistake_is_told_in_one_line(task, typed, start):
    settings = typed.split(" ")
    given = () if any(s.startswith("method=") for s in settings) else ("method=none",)
    found = command("model=tiny-random", f"task={task}", f"task.data_dir={task}", "runs_dir=runs",
                    *SIZES[task], *given, *settings)  # fmt: skip
    assert refused(found, start), found.err
