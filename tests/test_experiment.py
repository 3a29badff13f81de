"""A whole run, offline: its files agree with each other and with what was asked."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file

from sadi_bench.models.tiny_random import byte_tokenizer, tiny_random
from sadi_bench.results.selection import select_cell
from terminal import Finished, command, small_run, write_rows

FILES = {"config.yaml", "pairs.jsonl", "docs.jsonl", "elements.csv", "grid.parquet",
         "steering.safetensors", "result.json", "log.txt"}  # fmt: skip
CELLS = {1: (1, 1), 2: (1, 5), 3: (3, 1), 4: (3, 5)}
HARNESS_KEYS = {"results", "configs", "versions", "n-shot", "n-samples", "higher_is_better",
                "config", "git_hash", "date", "transformers_version"}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("experiment")
    write_rows(folder / "boolq")
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("SADI_BENCH_DATA", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def finished(folder) -> Finished:
    return small_run(folder)


@pytest.fixture(scope="module")
def grid(finished) -> pd.DataFrame:
    return pd.read_parquet(finished.path / "grid.parquet")


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_every_file_of_its_directory_and_says_where(finished, folder):
    assert finished.code == 0
    assert finished.path.parent == folder / "runs"
    assert {file.name for file in finished.path.iterdir()} == FILES


def test_the_grid_has_a_row_for_every_split_document_and_cell(grid):
    assert len(grid) == (6 + 6) * 5
    assert not grid.duplicated(["split", "doc_id", "cell"]).any()
    assert grid.groupby("split")["doc_id"].nunique().to_dict() == {"select": 6, "test": 6}
    assert set(grid["cell"]) == {0, *CELLS}
    assert grid["finite"].all()


def test_cell_0_has_no_parameters_and_the_others_are_the_product_asked_for(grid):
    assert grid.loc[grid["cell"] == 0, ["top_k", "strength"]].isna().all(axis=None)
    steered = grid[grid["cell"] > 0]
    found = steered.groupby("cell")[["top_k", "strength"]].first()
    assert {cell: tuple(row) for cell, row in found.iterrows()} == CELLS


def test_a_strength_of_1_changes_no_number_and_5_changes_some(grid):
    logprobs = {cell: np.stack(rows["choice_logprobs"]) for cell, rows in grid.groupby("cell")}
    assert np.array_equal(logprobs[1], logprobs[0])
    assert np.array_equal(logprobs[3], logprobs[0])
    assert not np.array_equal(logprobs[2], logprobs[0])


def test_metrics_follow_from_the_log_probabilities_and_the_gold(grid):
    picked = grid["choice_logprobs"].map(np.argmax)
    assert (grid["acc"] == (picked == grid["gold"])).all()


def test_documents_and_pairs_hold_the_tokens_of_the_text_they_name(finished, grid):
    tokenizer = byte_tokenizer()
    rows = {row["question"] for row in lines_of(Path("boolq/dev.jsonl"))}
    for doc in lines_of(finished.path / "docs.jsonl"):
        prompt = tokenizer.decode(doc["prompt_tokens"])
        assert prompt.endswith("Answer:")
        assert (prompt.split("Question: ")[1].split("\n")[0] in rows) == (doc["split"] == "test")
        assert [tokenizer.decode(answer) for answer in doc["choice_tokens"]] == [" No", " Yes"]
        scored = grid[(grid["split"] == doc["split"]) & (grid["doc_id"] == doc["doc_id"])]
        assert set(scored["gold"]) == {doc["gold"]}
    for pair in lines_of(finished.path / "pairs.jsonl"):
        assert tokenizer.decode(pair["prompt_tokens"]) == pair["prompt"]
        assert tokenizer.decode(pair["positive_tokens"]) == pair["positive"]
        assert tokenizer.decode(pair["negative_tokens"]) == pair["negative"]
        assert {pair["positive"], pair["negative"]} == {" No", " Yes"}


def test_no_prompt_is_identified_selected_and_tested_on_at_once(finished):
    docs = lines_of(finished.path / "docs.jsonl")
    pairs = {tuple(pair["prompt_tokens"]) for pair in lines_of(finished.path / "pairs.jsonl")}
    select, test = (
        {tuple(doc["prompt_tokens"]) for doc in docs if doc["split"] == split}
        for split in ("select", "test")
    )
    assert (len(pairs), len(select), len(test)) == (8, 6, 6)
    assert not pairs & select
    assert not (pairs | select) & test


def test_elements_are_ranked_by_the_score_that_the_tensors_hold(finished):
    with (finished.path / "elements.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = load_file(finished.path / "steering.safetensors")["element_scores"]
    assert scores.shape == (4, 6)
    assert [int(row["rank"]) for row in rows] == list(range(24))
    listed = [(int(row["layer"]), int(row["index"])) for row in rows]
    assert [scores[place] for place in listed] == sorted(scores.flatten(), reverse=True)
    assert [float(row["score"]) for row in rows] == [float(scores[place]) for place in listed]


def test_the_result_reads_as_one_of_lm_eval_with_ours_beside_it(finished, grid):
    result = finished.result
    assert set(result) >= HARNESS_KEYS | {"sadi_bench"}
    assert set(result["results"]) == {"boolq", "boolq_heldout", "boolq_oracle"}
    assert result["n-samples"]["boolq"] == {"original": 6, "effective": 6}
    means = grid[grid["split"] == "test"].groupby("cell")["acc"].mean()
    for row, name in (("unsteered", ""), ("heldout", "_heldout"), ("oracle", "_oracle")):
        reported = result["sadi_bench"]["protocols"][row]
        value = reported["metrics"]["acc"]["value"]
        assert value == result["results"][f"boolq{name}"]["acc,none"] == means[reported["cell"]]


def test_the_chosen_cells_are_those_that_selection_gives(finished, grid):
    reported = finished.result["sadi_bench"]["protocols"]
    assert reported["heldout"]["cell"] == select_cell(grid, "select", "acc").cell
    assert reported["oracle"]["cell"] == select_cell(grid, "test", "acc").cell
    assert reported["heldout"]["params"] == dict(
        zip(("top_k", "strength"), CELLS[reported["heldout"]["cell"]], strict=True)
    )


def test_select_by_another_metric_is_heeded(folder):
    finished = small_run(folder, "select_by=exact_match")
    reported = finished.result["sadi_bench"]["protocols"]
    assert reported["metric"] == reported["heldout"]["selection"]["metric"] == "exact_match"


def test_the_config_says_what_auto_became_and_the_counts_what_was_done(finished):
    config = yaml.safe_load((finished.path / "config.yaml").read_text())
    assert config["model"]["name"] == "tiny-random"
    assert config["model"]["dtype"] == "float32"
    assert config["model"]["device"] != "auto"
    counts = finished.result["sadi_bench"]["counts"]
    assert counts == {"pairs": 8, "select": 6, "test": 6, "cells": 5, "nonfinite_rows": 0,
                      "merged_answers": 0, "merged_pairs": 0}  # fmt: skip


def test_the_log_is_in_the_directory_and_what_a_reader_must_know_is_said(finished):
    log = (finished.path / "log.txt").read_text()
    assert "tiny-random: float32 on " in log
    assert all(line in log for line in finished.err.splitlines())


def test_the_table_shows_all_three_rows(finished):
    assert "boolq, tiny-random, sadi-head, 0-shot: n = 6 test documents" in finished.out
    for row in ("\nunsteered ", "\nheld-out cell ", "\noracle cell "):
        assert row in finished.out


def digests(path: Path) -> dict[str, str]:
    """Hash what was computed; safetensors shuffles its metadata, so its tensors are hashed."""
    files = ("pairs.jsonl", "docs.jsonl", "elements.csv", "grid.parquet")
    contents = {name: (path / name).read_bytes() for name in files}
    tensors = load_file(path / "steering.safetensors")
    contents |= {name: tensor.tobytes() for name, tensor in tensors.items()}
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def test_a_second_run_shows_the_first_and_force_computes_the_same_bytes(folder, finished):
    before, result = digests(finished.path), (finished.path / "result.json").read_bytes()
    again = small_run(folder)
    assert "this run was finished before; force=true computes it again" in again.err
    assert again.out == finished.out
    assert (finished.path / "result.json").read_bytes() == result
    forced = small_run(folder, "force=true")
    assert "finished before" not in forced.err
    assert (finished.path / "result.json").read_bytes() != result  # its date
    assert digests(forced.path) == before


@pytest.mark.parametrize("same", ["debug=true", "workers=1"])
def test_what_cannot_change_a_result_finds_the_run_again(folder, finished, same):
    assert small_run(folder, same).path == finished.path


@pytest.mark.parametrize(
    "other",
    ["seed=1", "task.n_test=5", "method.strength=[1,6]", "method.patch=inflight", "model.seed=1",
     "token_budget=99"],
)  # fmt: skip
def test_what_can_change_a_result_gets_a_directory_of_its_own(folder, finished, other):
    found = small_run(folder, other)
    assert found.code == 0
    assert found.path != finished.path
    assert "finished before" not in found.err


def test_other_rows_get_a_directory_of_their_own(folder, finished):
    write_rows(folder / "elsewhere" / "boolq", train=31)
    data = folder / "elsewhere" / "boolq"
    assert small_run(folder, f"task.data_dir={data}").path.name != finished.path.name


def test_runs_dir_moves_a_run_but_keeps_its_name(folder, finished):
    moved = small_run(folder, f"runs_dir={folder / 'moved'}")
    assert moved.path == folder / "moved" / finished.path.name


def test_what_a_killed_run_left_is_computed_anew(folder, finished):
    path = folder / "killed" / finished.path.name
    path.mkdir(parents=True)
    (path / "pairs.jsonl").write_text("{}\n")
    (path / ".grid.parquet.0123456789ab.tmp").write_text("half")
    found = small_run(folder, f"runs_dir={folder / 'killed'}")
    assert "finished before" not in found.err
    assert {file.name for file in path.iterdir()} == FILES
    assert digests(path) == digests(finished.path)


def test_the_unsteered_method_reports_one_row_and_nothing_learnt(folder):
    found = small_run(folder, "method=none")
    ours = found.result["sadi_bench"]
    assert ours["protocols"]["heldout"] is ours["protocols"]["oracle"] is None
    assert set(found.result["results"]) == {"boolq"}
    assert set(pd.read_parquet(found.path / "grid.parquet")["cell"]) == {0}
    assert "oracle cell" not in found.out
    assert {file.name for file in found.path.iterdir()} == FILES


def test_unsteered_values_do_not_depend_on_the_method(folder, grid):
    none = pd.read_parquet(small_run(folder, "method=none").path / "grid.parquet")
    unsteered = grid[grid["cell"] == 0].reset_index(drop=True)
    assert (none[["split", "doc_id", "acc"]] == unsteered[["split", "doc_id", "acc"]]).all(
        axis=None
    )
    first, second = (np.stack(frame["choice_logprobs"]) for frame in (none, unsteered))
    assert np.abs(first - second).max() < 1e-4


def test_an_unsteered_run_does_not_depend_on_the_run_before_it(folder):
    """In bfloat16 another run's passes round otherwise: its cell 0 has other numbers."""
    half = ("model.dtype=bfloat16", "model.seed=7")
    before = small_run(folder, *half, "method=none", "runs_dir=before")
    steered = small_run(folder, *half, "runs_dir=between")
    after = small_run(folder, *half, "method=none", "runs_dir=after")
    alone, again = ((run.path / "grid.parquet").read_bytes() for run in (before, after))
    assert again == alone
    cell_0 = pd.read_parquet(steered.path / "grid.parquet").query("cell == 0")
    numbers = pd.read_parquet(before.path / "grid.parquet")["choice_logprobs"]
    assert not np.array_equal(np.stack(cell_0["choice_logprobs"]), np.stack(numbers))


def test_the_papers_protocol_reports_the_oracle_alone(folder):
    found = command(
        "model=tiny-random", "task=boolq", "method.top_k=[1,3]", "method.strength=[1,5]",
        f"task.data_dir={folder / 'boolq'}", f"runs_dir={folder / 'runs'}", "protocol=paper",
    )  # fmt: skip
    ours = found.result["sadi_bench"]
    assert ours["protocols"]["heldout"] is None
    assert ours["protocols"]["oracle"] is not None
    assert ours["counts"]["pairs"] == 30  # all of them: nothing is kept to select on
    assert set(pd.read_parquet(found.path / "grid.parquet")["split"]) == {"test"}
    assert "held-out cell" not in found.out
    assert "only the oracle can be reported" in found.err


def test_demonstrations_stand_in_front_of_every_prompt(folder):
    found = small_run(folder, "task.fewshot=2")
    texts = [byte_tokenizer().decode(doc["prompt_tokens"]) for doc in
             lines_of(found.path / "docs.jsonl")]  # fmt: skip
    assert {text.count("Answer:") for text in texts} == {3}
    assert found.result["n-shot"]["boolq"] == 2


def test_a_sweep_runs_every_combination(folder):
    found = small_run(folder, "-m", "method=sadi-head,sadi-neuron", "method.top_k=2",
                      "method.strength=3", "seed=0,1")  # fmt: skip
    assert found.code == 0
    (summary,) = (folder / "sweeps").glob("*.csv")
    paths = [Path(path) for path in pd.read_csv(summary)["run_directory"]]
    told = [json.loads((path / "result.json").read_text()) for path in paths]
    assert [(r["sadi_bench"]["method"], r["config"]["random_seed"]) for r in told] == [
        ("sadi-head", 0), ("sadi-head", 1), ("sadi-neuron", 0), ("sadi-neuron", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("chosen", ["model=custom", "model=smollm2-135m", "model=tiny-random"])
def test_a_folder_takes_the_models_place_and_gives_it_its_name(folder, chosen):
    network, tokenizer = tiny_random(3)
    network.save_pretrained(folder / "my-model")
    tokenizer.save_pretrained(folder / "my-model")
    found = small_run(folder, chosen, "model.pretrained=my-model", "model.dtype=float32")
    assert found.result["sadi_bench"]["model"] == "my-model"
    assert yaml.safe_load((found.path / "config.yaml").read_text())["model"]["package"] is None
    seeded = small_run(folder, "model.seed=3")
    ours, theirs = (pd.read_parquet(run.path / "grid.parquet") for run in (found, seeded))
    assert np.allclose(np.stack(ours["choice_logprobs"]), np.stack(theirs["choice_logprobs"]))


def test_a_model_whose_files_changed_is_another_run(folder):
    network, tokenizer = tiny_random(4)
    network.save_pretrained(folder / "changing")
    tokenizer.save_pretrained(folder / "changing")
    first = small_run(folder, "model.pretrained=changing")
    tiny_random(5)[0].save_pretrained(folder / "changing")
    assert small_run(folder, "model.pretrained=changing").path != first.path
