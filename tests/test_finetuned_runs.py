"""Whole runs on a fine-tuned model, and what they say of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from sadi_bench.models import finetune
from sadi_bench.results.paper.table_runs import result_at
from sadi_bench.results.tables import markdown_table, run_table
from terminal import Finished, small_run, write_rows

SFT = ("finetune=sft", "finetune.learning_rate=1e-3", "finetune.epochs=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finetuned")
    write_rows(folder / "boolq")
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(finetune, "cache_folder", lambda: folder / "cache")
    monkeypatch.delenv("SADI_BENCH_DATA", raising=False)


def ran(folder: Path, *arguments: str) -> Finished:
    finished = small_run(folder, *arguments)
    assert finished.code == 0, finished.err
    return finished


def unsteered(finished: Finished) -> np.ndarray:
    grid = pd.read_parquet(finished.path / "grid.parquet")
    return np.stack(grid.loc[grid["cell"] == 0, "choice_logprobs"])


def test_a_method_is_applied_to_the_fine_tuned_model(folder):
    plain, tuned = ran(folder), ran(folder, *SFT)
    assert tuned.path != plain.path
    ours = tuned.result["sadi_bench"]
    facts = ours["finetune"]
    assert (ours["model"], ours["method"]) == ("tiny-random", "sadi-head")
    assert (facts["kind"], facts["examples"], facts["epochs"], facts["reused"]) == (
        "sft", 8, 2, False,
    )  # fmt: skip
    assert len(facts["train_loss"]) == 2
    assert (folder / "cache" / "finetuned" / facts["checkpoint"]).is_dir()
    assert tuned.out.startswith("boolq, tiny-random, sadi-head, sft, 0-shot: n = 6 test documents")
    assert np.abs(unsteered(plain) - unsteered(tuned)).max() > 0.1
    config = yaml.safe_load((tuned.path / "config.yaml").read_text())
    assert config["finetune"]["learning_rate"] == 1e-3
    assert ours["seconds"]["prepare"] > 0


def test_another_method_finds_the_same_checkpoint_and_the_same_unsteered_model(folder):
    first = ran(folder, *SFT)
    second = ran(folder, *SFT, "method=none")
    facts, again = (run.result["sadi_bench"]["finetune"] for run in (first, second))
    assert again["checkpoint"] == facts["checkpoint"]
    assert again["reused"]
    assert "is there already and used again" in second.err
    assert np.abs(unsteered(first) - unsteered(second)).max() < 1e-4


def test_every_epoch_has_a_line_in_the_log_and_standard_output_none(folder):
    finished = ran(folder, *SFT, "seed=5")
    log = (finished.path / "log.txt").read_text()
    losses = finished.result["sadi_bench"]["finetune"]["train_loss"]
    for epoch, loss in enumerate(losses, start=1):
        line = f"tiny-random: sft epoch {epoch} of 2: loss {loss:.4f}"
        assert line in log
        assert line in finished.err
        assert line not in finished.out
    assert "{" not in finished.out
    assert "%|" not in finished.err


def test_lora_runs_through_the_command(folder):
    ours = result_at(ran(folder, "finetune=lora", "finetune.lora.rank=2").path)
    assert (ours["finetune"]["kind"], ours["finetune"]["lora"]["rank"]) == ("lora", 2)
    assert ours["paper"] == {"task": "boolq", "method": None, "unsteered": None}


def test_without_fine_tuning_a_run_says_nothing_of_it(folder):
    finished = ran(folder)
    assert "finetune" not in yaml.safe_load((finished.path / "config.yaml").read_text())
    ours = result_at(finished.path)
    assert "finetune" not in {*ours, *ours["seconds"]}
    assert ours["paper"] == {"task": "boolq", "method": None, "unsteered": None}  # acc chose


def test_the_table_shows_the_papers_fine_tuned_rows(folder):
    result = ran(folder, *SFT).result
    ours = result["sadi_bench"]
    ours |= {"model": "llama2-7b"}
    ours["paper"] = {"task": "copa", "method": "sft+sadi-head", "unsteered": "sft"}
    table = run_table(result, "somewhere")
    rows = [line for line in table.splitlines() if line.startswith(("unsteered ", "oracle cell "))]
    assert [line.split()[-1] for line in rows[:2]] == ["93.20", "94.60"]
    assert "| sadi-head, sft |" in markdown_table([result])
