"""Whole runs, recomputed from their directories by the slow loop."""

import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from sadi_bench.disk import cache_folder
from sadi_bench.experiment import run
from sadi_bench.models.spec import ModelSpec
from sadi_bench.models.tiny_random import tiny_random
from sadi_bench.results.tables import run_table
from sadi_bench.settings import RunConfig
from sadi_bench.steering.methods.sadi import Sadi
from sadi_bench.tasks.spec import FileSource, TaskSpec
from slow_loop import check_run
from terminal import command

WAYS = [(site, patch) for site in ("head", "neuron", "hidden") for patch in ("clean", "inflight")]
EMBEDDED = Path(__file__).parents[1] / "configs" / "model" / "smollm2-135m.yaml"
SENTENCES = ["a dull film", "warm and funny", "I slept", "see it twice", "fine", "a mess",
             "great fun", "too long"]  # fmt: skip


@pytest.fixture
def recompute(tmp_path):
    """Run one method on a few short sentences, then recompute the run directory."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    rows = [f"{i}\t{(2, -2)[i % 2]}\t{SENTENCES[i % 8]} {i}.\r\n" for i in range(30)]
    (folder / "reviews.txt").write_text("".join(rows), newline="")

    def recomputed(
        model: ModelSpec, network, tokenizer, n_docs: int, n_cells: int, **method
    ) -> dict:
        task = TaskSpec(
            name="reviews",
            doc_to_text="{{text}}\n\nAnswer:",
            doc_to_choice=["Negative", "Positive"],
            doc_to_target="label",
            columns=["id", "text", "label"],
            data_dir=str(folder),
            files=FileSource("reviews", "movie_reviews", test=["reviews.txt"]),
            n_pairs=6, n_select=4, n_test=4,
        )  # fmt: skip
        sadi = Sadi(**{"top_k": [2, 8], "strength": [5, 30], **method})
        settings = {"name": "sadi", "kind": "sadi", **asdict(sadi)}
        config = RunConfig(task=task, model=model, method=settings, runs_dir=str(tmp_path / "runs"))
        finished = run(config)
        assert "unsteered" in run_table(finished.result, finished.path)
        return check_run(finished.path, network, tokenizer, n_docs=n_docs, n_cells=n_cells)

    return recomputed


def agreed(report: dict, tolerance: float) -> bool:
    assert report["disagreements"] == []
    assert report["decisions_differing"] == report["finite_differing"] == 0
    assert report["ranks_checked"] >= 12
    assert report["ranks_differing_beyond_ties"] == 0
    assert report["max_score_difference"] < tolerance
    return report["max_logprob_difference"] < tolerance


@pytest.mark.parametrize(("site", "patch"), WAYS)
def test_a_run_on_tiny_random_equals_the_slow_loop(recompute, site, patch):
    model = ModelSpec(name="tiny", pretrained="tiny-random", dtype="float32", device="cpu")
    report = recompute(model, *tiny_random(0), 8, 4, site=site, patch=patch)
    assert agreed(report, 1e-4)
    assert report["rows_checked"] == 8 * 5


def test_the_other_switches_equal_the_slow_loop(recompute):
    model = ModelSpec(name="tiny", pretrained="tiny-random", dtype="float32", device="cpu")
    for switches in (
        {"site": "hidden", "hidden_site": "residual", "strength": [-1, 3]},
        {"site": "head", "score": "abs", "reach": "from_last_prompt"},
        {"site": "neuron", "vector": "fixed", "patch": "inflight"},
        {"site": "head", "vector": "fixed_norm", "top_k": [3], "strength": [-1, 3]},
    ):
        assert agreed(recompute(model, *tiny_random(0), 8, 2, **switches), 1e-4), switches


@pytest.mark.parametrize("match", ["none", "layer"])
def test_every_cell_of_several_draws_equals_the_slow_loop(recompute, match):
    model = ModelSpec(name="tiny", pretrained="tiny-random", dtype="float32", device="cpu")
    switches = {"elements": "random", "draws": 3, "match": match}
    report = recompute(model, *tiny_random(0), 2, 12, **switches)
    assert report["disagreements"] == []
    assert report["max_logprob_difference"] < 1e-4
    assert report["rows_checked"] == 2 * 13


@pytest.fixture(scope="module")
def embedded():
    """The model that the package index ships, if an earlier use de-quantised it."""
    requirement = yaml.safe_load(EMBEDDED.read_text())["package"]["requirement"]
    folder = cache_folder() / "models" / requirement.replace("==", "-")
    if not folder.is_dir():
        pytest.skip(f"the embedded model is not in {folder}: `make run` puts it there")
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return folder, network, AutoTokenizer.from_pretrained(folder)


@pytest.mark.model
@pytest.mark.parametrize(("site", "patch"), WAYS)
def test_a_run_on_the_embedded_model_equals_the_slow_loop(recompute, embedded, site, patch):
    folder, *model_parts = embedded
    model = ModelSpec(name="embedded", pretrained=str(folder), dtype="float32", device="cpu")
    report = recompute(model, *model_parts, 3, 2, site=site, patch=patch)
    assert agreed(report, 1e-3)
    assert report["rows_checked"] == 3 * 3


@pytest.mark.model
@pytest.mark.data
@pytest.mark.skipif("SADI_BENCH_DATA" not in os.environ, reason="SADI_BENCH_DATA is not set")
@pytest.mark.parametrize("task", ["copa", "boolq", "sst5"])
def test_real_rows_on_the_embedded_model_equal_the_slow_loop(embedded, tmp_path, task):
    folder, *model_parts = embedded
    finished = command(
        f"task={task}", "model=custom", f"model.pretrained={folder}", "model.dtype=float32",
        "model.device=cpu", "method.top_k=2", "method.strength=[5,30,80]", f"runs_dir={tmp_path}",
        "task.n_pairs=6", "task.n_select=2", "task.n_test=4",
    )  # fmt: skip
    assert finished.code == 0, finished.err
    report = check_run(finished.path, *model_parts, n_docs=6, n_cells=2)
    assert agreed(report, 1e-3)
    assert report["rows_checked"] == 6 * 3
