"""The Python door: what the command does, as values."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import sadi_bench as sb
from sadi_bench.errors import SettingError
from terminal import small_run, write_rows

SETTINGS = {"n_pairs": 8, "n_select": 6, "n_test": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("door")
    write_rows(folder / "boolq")
    return folder


@pytest.fixture(scope="module")
def lm():
    return sb.load_model("tiny-random")


@pytest.fixture(scope="module")
def task(folder):
    return sb.load_task("boolq", data_dir=str(folder / "boolq"), **SETTINGS)


@pytest.fixture(scope="module")
def steering(lm, task):
    return sb.fit("sadi-head", lm, task, top_k=[3, 1], strength=[5, 20])


@pytest.fixture(scope="module")
def run(folder) -> "sb.Run":
    finished = small_run(
        folder, "method=sadi-head", "method.top_k=[3,1]", "method.strength=[5,20]",
        "task.n_pairs=8", "task.n_select=6", "task.n_test=6",
    )  # fmt: skip
    assert finished.code == 0, finished.err
    return sb.load_run(finished.path)


def test_importing_it_imports_neither_torch_nor_hydra():
    code = "import sys, sadi_bench; print([m for m in ('torch', 'hydra') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_that_it_offers_is_there_and_nothing_else_is():
    assert all(hasattr(sb, name) for name in sb.__all__)
    with pytest.raises(AttributeError, match="no attribute 'evaluate'"):
        sb.evaluate  # noqa: B018


def test_the_frame_is_the_runs_own(lm, task, steering, run):
    frame = sb.score(lm, task, steering)
    pd.testing.assert_frame_equal(
        frame.astype({"predicted": str}), run.grid.astype({"predicted": str}), check_like=True
    )


def test_what_is_fitted_is_what_the_run_saved(steering, run):
    for name, tensor in steering.tensors().items():
        assert torch.equal(run.steering.tensors()[name], tensor)
    assert run.steering.cells == steering.cells


def test_a_run_is_a_value_with_its_table_grid_report_and_steering(run):
    assert run.table.startswith("boolq, tiny-random, sadi-head")
    assert set(run.report) >= {"protocols", "cells", "answers", "diagnosis"}
    assert set(run.grid["cell"]) == {0, 1, 2, 3, 4}
    assert run.steering.origin.chosen["heldout"] == run.report["protocols"]["heldout"]["cell"]


def test_run_does_what_the_command_does(folder, run):
    again = sb.run(
        "task=boolq", f"task.data_dir={folder / 'boolq'}", "model=tiny-random", "method=sadi-head",
        "method.top_k=[3,1]", "method.strength=[5,20]", "task.n_pairs=8", "task.n_select=6",
        "task.n_test=6", f"runs_dir={folder / 'runs'}",
    )  # fmt: skip
    assert again.path.name == run.path.name
    assert again.result["date"] == run.result["date"]  # found, not computed again


def test_two_runs_or_two_cells_are_compared_as_a_frame(run):
    found = sb.compare(run, f"{run.path}:2")
    assert found.loc["acc", "n"] == 6
    same = sb.compare(run, run)
    assert (same["difference"] == 0).all()


def test_a_model_is_found_by_config_or_folder(lm, tmp_path):
    lm.network.save_pretrained(tmp_path / "mine")
    lm.tokenizer.save_pretrained(tmp_path / "mine")
    mine = sb.load_model(str(tmp_path / "mine"), dtype="float32", device="cpu")
    assert mine.digest == lm.digest
    assert mine.name == "mine"


def test_text_is_written_with_and_without_steering(lm, run):
    plain = sb.generate(lm, ["one", "two"], max_new_tokens=6)
    same = sb.generate(lm, ["one", "two"], run.steering, cell=0, max_new_tokens=6)
    steered = sb.generate(lm, "one", run.steering, cell="heldout", max_new_tokens=6)
    assert plain == same
    assert len(steered) == 1


@pytest.mark.parametrize("cell", ["heldout", 4])
def test_a_block_steers_transformers_as_generate_does(lm, run, cell):
    prompts = ["a prompt", "another, longer prompt"]
    ours = sb.generate(lm, prompts, run.steering, cell=cell, max_new_tokens=8)
    tokenizer = lm.tokenizer
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    inputs.pop("token_type_ids", None)
    with sb.applied(lm.network, run.steering, cell=cell):
        written = lm.network.generate(**inputs, max_new_tokens=8, do_sample=False)
    width = inputs["input_ids"].shape[1]
    theirs = [tokenizer.decode(row[width:], skip_special_tokens=True) for row in written]
    assert theirs == ours


def test_pairs_of_ones_own_need_no_task(lm):
    pairs = [("Is it so?", " yes", " no"), ("Is it not?", " no", " yes"), ("So?", " yes", " no")]
    steering = sb.fit("caa", lm, pairs=pairs, layer=1, multiplier=[1, 4])
    assert len(steering.cells) == 3
    assert steering.origin.task == ""
    assert sb.generate(lm, "Is it?", steering, cell=2, max_new_tokens=4)


def test_another_model_is_refused_wherever_steering_is_used(task, steering):
    other = sb.load_model("tiny-random", seed=3)
    for use in (
        lambda: sb.score(other, task, steering),
        lambda: sb.generate(other, "x", steering, cell=1),
        lambda: sb.applied(other.network, steering, cell=1).__enter__(),
    ):
        with pytest.raises(SettingError, match="learnt from tiny-random .*digest"):
            use()


def test_nothing_is_measured_inside_a_block(lm, task, steering):
    with sb.applied(lm.network, steering, cell=1):
        for use in (
            lambda: sb.score(lm, task, steering),
            lambda: sb.generate(lm, "x"),
            lambda: sb.fit("caa", lm, task),
        ):
            with pytest.raises(SettingError, match="leave the block first"):
                use()
    assert sb.generate(lm, "x", max_new_tokens=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda *_: sb.load_model("tiny-random", dtyp="float32"), "model.dtyp: no such setting"),
        (lambda *_: sb.load_task("coppa"), "task=coppa: unknown. Did you mean copa"),
        (lambda *_: sb.load_task("copa", n_pairs="many"), "task.n_pairs=many: expected a whole"),
        (lambda lm, task: sb.fit("sadi", lm, task), "method=sadi: unknown"),
        (lambda lm, task: sb.fit("caa", lm, task, layer=99), "method.layer=99: .*at most 3"),
        (lambda lm, _: sb.fit("caa", lm), "give a task, or pairs"),
        (lambda lm, task: sb.fit("caa", lm, task, pairs=[("a", "b", "c")]), "give a task, or"),
        (lambda lm, _: sb.fit("calibrate", lm, pairs=[("a", " b", " c")]), "of your own belong"),
        (lambda *_: sb.run("task=copa", "nonsense"), "nonsense"),
        (lambda *_: sb.load_run("no/where"), "no finished run"),
    ],
)
def test_a_mistake_is_one_line(lm, task, call, message):
    with pytest.raises(SettingError, match=message) as caught:
        call(lm, task)
    assert "\n" not in str(caught.value)
