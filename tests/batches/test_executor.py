"""Batches are planned once, done once, and go on where they were left."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from squares import Squares, ran

from sadi_bench.batches.executor import Executor
from sadi_bench.batches.stopping import Terminated, finishing_first
from sadi_bench.errors import SettingError

BATCHES = [(5, 4, 3), (2, 1), (9,), (8, 7)]


def squares(job, executor, lm):
    return [found["squares"].tolist() for found in executor.results(job, lm)]


EXPECTED = [[n * n for n in batch] for batch in BATCHES]


def test_results_come_in_the_order_of_the_plan(tmp_path, llama):
    assert squares(Squares(BATCHES, tmp_path), Executor(), llama) == EXPECTED
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]  # nothing kept


def test_what_is_kept_is_not_done_again(tmp_path, llama):
    job, executor = Squares(BATCHES, tmp_path), Executor(tmp_path / "shards")
    results = executor.results(job, llama)
    assert [next(results)["squares"].tolist() for _ in range(2)] == EXPECTED[:2]
    results.close()
    assert squares(job, executor, llama) == EXPECTED
    assert [row[0] for row in ran(tmp_path)] == [5, 2, 9, 8]


def test_a_damaged_shard_alone_is_done_again(tmp_path, llama):
    job, executor = Squares(BATCHES, tmp_path), Executor(tmp_path / "shards")
    squares(job, executor, llama)
    (path,) = (tmp_path / "shards").glob("*/00002-*")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert squares(job, executor, llama) == EXPECTED
    assert [row[0] for row in ran(tmp_path)] == [5, 2, 9, 8, 9]


def test_where_memory_runs_out_the_following_batches_are_cut_at_once(tmp_path, llama):
    job = Squares([(1, 2, 3, 4, 5), (6, 7, 8, 9), (10,)], tmp_path, room=2)
    found = squares(job, Executor(), llama)
    assert found == [[1, 4, 9, 16, 25], [36, 49, 64, 81], [100]]
    assert [row[:2] for row in ran(tmp_path)] == [[1, 3], [6, 4], [10, 1]]


def test_the_smallest_piece_beyond_the_memory_is_told_in_one_line(tmp_path, llama):
    with pytest.raises(SettingError, match="out of memory with one prompt and one cell"):
        squares(Squares(BATCHES, tmp_path, room=0), Executor(), llama)


def test_killed_at_any_batch_a_run_goes_on_where_it_was(tmp_path, llama):
    """A process is killed in every batch in turn; each is done once, and none is lost."""
    for batch in BATCHES:
        (tmp_path / f"kill-{batch[0]}").write_text("1")
    script = (
        "import sys, pathlib, cases\n"
        "from squares import Squares\n"
        "from sadi_bench.batches.executor import Executor\n"
        f"job = Squares({BATCHES}, pathlib.Path(sys.argv[1]))\n"
        "list(Executor(pathlib.Path(sys.argv[1]) / 'shards').results(job, None))\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(["tests", "tests/batches"])}
    codes = []
    while not codes or codes[-1]:
        command = [sys.executable, "-c", script, str(tmp_path)]
        codes.append(subprocess.run(command, env=env, check=False).returncode)
    assert codes == [-signal.SIGKILL] * 4 + [0]
    assert [row[0] for row in ran(tmp_path)] == [5, 2, 9, 8]
    assert squares(Squares(BATCHES, tmp_path), Executor(tmp_path / "shards"), llama) == EXPECTED
    assert len(ran(tmp_path)) == 4


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_the_first_signal_waits_for_the_block_and_the_second_does_not(number, raised, caplog):
    before, done = signal.getsignal(number), []
    with pytest.raises(raised) as caught, finishing_first():
        os.kill(os.getpid(), number)
        done.append("whole")
    assert done and caught.type is raised
    assert "stopping after this batch" in caplog.text
    with pytest.raises(raised), finishing_first():
        os.kill(os.getpid(), number)
        done.append("once")
        os.kill(os.getpid(), number)
        done.append("never")
    assert done == ["whole", "once"]
    assert signal.getsignal(number) == before


def test_an_ignored_signal_stays_ignored_and_other_threads_run_as_they_are():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with finishing_first():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGINT, before)
    done = []

    def elsewhere() -> None:
        with finishing_first():
            done.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_signal_keeps_the_batch_it_came_in(tmp_path, llama):
    class Signalled(Squares):
        def run(self, lm, batch, halvings):
            if batch[0] == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().run(lm, batch, halvings)

    executor = Executor(tmp_path / "shards")
    with pytest.raises(KeyboardInterrupt):
        list(executor.results(Signalled(BATCHES, tmp_path), llama))
    assert squares(Squares(BATCHES, tmp_path), executor, llama) == EXPECTED
    assert [row[0] for row in ran(tmp_path)] == [5, 2, 9, 8]


def test_arrays_of_a_batch_are_numpy(tmp_path, llama):
    for found in Executor(tmp_path / "s").results(Squares(BATCHES, tmp_path), llama):
        assert all(isinstance(array, np.ndarray) for array in found.values())
