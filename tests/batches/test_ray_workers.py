"""Workers in processes of their own find the bytes that one process finds, though some die."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from squares import Squares, ran

from sadi_bench.batches.executor import Executor
from sadi_bench.batches.ray_workers import MOST_DEATHS, RayWorkers
from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.loading import load_language_model
from sadi_bench.models.spec import ModelSpec
from terminal import command, write_rows

pytest.importorskip("ray", reason="pip install 'sadi-bench[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

HERE = Path(__file__).parent
BATCHES = [(5, 4, 3), (2, 1), (9,), (8, 7), (10,), (11, 12)]
EXPECTED = [[n * n for n in batch] for batch in BATCHES]


@pytest.fixture(scope="module")
def workers():
    """Two workers of a Ray of this module's own."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent)]))
        pool = RayWorkers(2, load_language_model)
        yield pool
        pool.close()
        ray.shutdown()


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load_language_model(ModelSpec(pretrained="tiny-random", device="cpu", dtype="float32"))


def squares(job, executor, lm):
    return [found["squares"].tolist() for found in executor.results(job, lm)]


def test_batches_are_shared_and_come_back_in_the_order_of_the_plan(workers, lm, tmp_path):
    assert squares(Squares(BATCHES, tmp_path), Executor(None, workers), lm) == EXPECTED
    processes = {row[2] for row in ran(tmp_path)}
    assert len(processes) == 2 and os.getpid() not in processes
    cores = len(os.sched_getaffinity(0))
    assert {row[3] for row in ran(tmp_path)} == {max(1, cores // 2)}  # threads


def test_a_worker_that_dies_is_replaced_and_its_batch_done_again(workers, lm, tmp_path, caplog):
    for batch in (2, 9):
        (tmp_path / f"kill-{batch}").write_text("1")
    with caplog.at_level(logging.WARNING):
        found = squares(Squares(BATCHES, tmp_path), Executor(tmp_path / "s", workers), lm)
    assert found == EXPECTED
    assert sorted(row[0] for row in ran(tmp_path)) == sorted(batch[0] for batch in BATCHES)
    assert caplog.text.count("another takes its place") == 2
    assert squares(Squares(BATCHES, tmp_path), Executor(tmp_path / "s"), lm) == EXPECTED
    assert len(ran(tmp_path)) == len(BATCHES)  # here, from the shards


def test_a_batch_that_kills_every_worker_is_told_in_one_line(workers, lm, tmp_path):
    (tmp_path / "kill-9").write_text("99")
    told = f"{MOST_DEATHS} workers died in turn on batch 2"
    with pytest.raises(SettingError, match=told) as caught:
        squares(Squares(BATCHES, tmp_path), Executor(None, workers), lm)
    assert "\n" not in str(caught.value)


def test_what_a_worker_raises_is_raised_here(workers, lm, tmp_path):
    (tmp_path / "wrong-8").touch()
    with pytest.raises(ValueError, match="batch 8 is wrong"):
        squares(Squares(BATCHES, tmp_path), Executor(None, workers), lm)
    with pytest.raises(SettingError, match="out of memory with one prompt and one cell"):
        squares(Squares(BATCHES, tmp_path, room=0), Executor(None, workers), lm)
    job = Squares([(1, 2, 3, 4), (5, 6, 7, 8)], tmp_path, room=1)
    assert squares(job, Executor(None, workers), lm) == [[1, 4, 9, 16], [25, 36, 49, 64]]


def test_more_workers_than_there_is_room_for_are_refused(workers, lm, tmp_path):
    too_many = RayWorkers(4096, load_language_model)
    with pytest.raises(SettingError, match=r"workers=4096: the Ray cluster has \d+ CPUs"):
        squares(Squares(BATCHES, tmp_path), Executor(None, too_many), lm)
    by_hand = LanguageModel("by hand", lm.network, lm.tokenizer)
    with pytest.raises(SettingError, match="made by hand cannot be loaded again"):
        squares(Squares(BATCHES, tmp_path), Executor(None, workers), by_hand)


def test_a_spread_run_has_the_bytes_of_a_serial_one_though_a_worker_is_killed(
    tmp_path, monkeypatch
):
    """A process of its own, with a Ray of its own; one worker is killed on the way."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SADI_BENCH_CACHE", str(tmp_path / "cache"))
    write_rows(tmp_path / "boolq")
    arguments = ["model=tiny-random", "task=boolq", "task.data_dir=boolq", "task.n_pairs=8",
                 "task.n_select=8", "task.n_test=8", "token_budget=150", "method.top_k=[1,3]",
                 "method.strength=[1,5]"]  # fmt: skip
    serial = command(*arguments, "runs_dir=serial")
    assert serial.code == 0, serial.err
    monkeypatch.setenv("SADI_BENCH_CACHE", str(tmp_path / "other"))
    script = (
        "import ray\n"
        "from sadi_bench.batches import ray_workers\n"
        "from sadi_bench.cli import main\n"
        "hand_out, left = ray_workers._UnderWay.hand_out, [3]\n"
        "def killing(self):\n"
        "    hand_out(self)\n"
        "    left[0] -= 1\n"
        "    if left[0] == 0:\n"
        "        ray.kill(next(iter(self.running.values()))[1])\n"
        "ray_workers._UnderWay.hand_out = killing\n"
        "main()\n"
    )
    spread = subprocess.run(
        [sys.executable, "-c", script, *arguments, "workers=2", "runs_dir=spread"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert spread.returncode == 0, spread.stderr
    assert "another takes its place" in spread.stderr
    (path,) = (tmp_path / "spread").iterdir()
    assert path.name == serial.path.name
    for name in ("grid.parquet", "elements.csv", "steering.safetensors"):
        assert (path / name).read_bytes() == (serial.path / name).read_bytes(), name
