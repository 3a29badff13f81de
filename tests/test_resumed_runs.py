"""A run that was stopped anywhere goes on where it was, and ends with the bytes of a whole one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sadi_bench.batches.shards import Shards
from terminal import command, write_rows
from text_runs import METHODS, SHORT, SIZES, stand_alone, write_tasks

CHOOSING = ("model=tiny-random", "task=boolq", "task.n_pairs=14", "task.n_select=12",
            "task.n_test=12")  # fmt: skip
GRIDS = ("grid.parquet", "docs.jsonl", "elements.csv", "pairs.jsonl", "steering.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("resumed")
    write_rows(folder / "boolq")
    write_tasks(folder)
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    stand_alone(folder, monkeypatch)


def asked(task: str, method: str, budget: int = 150) -> tuple[str, ...]:
    """Ask for a run; a small budget makes many batches."""
    if task == "boolq":
        sizes = (*CHOOSING, f"token_budget={budget}", "task.data_dir=boolq")
        return (*sizes, f"method={method}", *METHODS[method])
    sizes = (*SIZES[task], SHORT, f"token_budget={budget}", f"task.data_dir={task}")
    return ("model=tiny-random", f"task={task}", *sizes, f"method={method}", *METHODS[method])


def stopped_after_each_shard(monkeypatch, arguments) -> int:
    """Stop a run each time one more batch is kept, until it is done; return how often."""
    keep, times = Shards.keep, 0

    def once(self, *args):
        keep(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Shards, "keep", once)
        while (code := command(*arguments).code) != 0:
            assert code == 130
            times += 1
    return times


@pytest.mark.parametrize(
    ("task", "method", "at_least"),
    [("boolq", "sadi-head", 20), ("boolq", "iti", 5), ("triviaqa", "sadi-hidden", 3),
     ("boolq", "tda", 5), ("toxigen", "inferaligner", 3)],
)  # fmt: skip
def test_stopped_after_every_batch_a_run_ends_with_the_bytes_of_a_whole_one(
    folder, monkeypatch, task, method, at_least
):
    arguments = asked(task, method, 150 if at_least == 20 else 1000)
    whole = command(*arguments, f"runs_dir={folder / 'whole'}")
    assert whole.code == 0, whole.err
    monkeypatch.setenv("SADI_BENCH_CACHE", str(folder / f"cache-{task}-{method}"))
    times = stopped_after_each_shard(monkeypatch, [*arguments, f"runs_dir={folder / 'stopped'}"])
    assert times >= at_least, times
    resumed = folder / "stopped" / whole.path.name
    names = [*GRIDS, *(["generations.jsonl"] if task != "boolq" else [])]
    for name in names:
        assert (resumed / name).read_bytes() == (whole.path / name).read_bytes(), name
    assert not (resumed / ".shards").exists()


def test_killed_processes_lose_one_batch_each(folder):
    """kill -9 in the middle of a batch, three times."""
    arguments = [*asked("boolq", "sadi-head"), "runs_dir=killed"]
    script = (
        "import os, signal, sys\n"
        "from sadi_bench.scoring import choices\n"
        "left, score = int(sys.argv.pop(1)), choices.score_batch\n"
        "def counted(*args):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left < 0:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return score(*args)\n"
        "choices.score_batch = counted\n"
        "from sadi_bench.cli import main\n"
        "main()\n"
    )
    kept = []
    for left in (2, 3, 4):
        done = subprocess.run(
            [sys.executable, "-c", script, str(left), *arguments], check=False, capture_output=True
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        kept.append(len(list((folder / "killed").glob("*/.shards/*/*.safetensors"))))
    reading = kept[0] - 2  # pairs come before
    assert kept == [reading + 2, reading + 5, reading + 9]
    whole, resumed = command(*asked("boolq", "sadi-head")), command(*arguments)
    assert (whole.path / "grid.parquet").read_bytes() == (
        resumed.path / "grid.parquet"
    ).read_bytes()
    counted = resumed.result["sadi_bench"]["batches"]
    assert counted["scoring 5 cells"]["halved"] == 0
    assert counted["scoring 5 cells"]["batches"] > 9


def test_a_damaged_shard_of_a_stopped_run_is_named_and_scored_again(folder, monkeypatch):
    arguments = [*asked("boolq", "sadi-head"), "seed=5", "runs_dir=damaged"]
    keep = Shards.keep

    def third(self, number, *args):
        keep(self, number, *args)
        if self.job.startswith("scoring") and number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Shards, "keep", third)
        assert command(*arguments).code == 130
    (shard,) = (folder / "damaged").glob("*/.shards/*/00001-*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 255
    shard.write_bytes(content)
    finished = command(*arguments)
    assert f"{shard.name}: damaged, half written or foreign" in finished.err
    whole = command(*arguments[:-1])
    assert (whole.path / "grid.parquet").read_bytes() == (
        finished.path / "grid.parquet"
    ).read_bytes()


def test_sigterm_is_taken_like_ctrl_c(folder):
    script = (
        "import os, signal\n"
        "from sadi_bench.scoring import choices\n"
        "score = choices.score_batch\n"
        "def told(*args):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return score(*args)\n"
        "choices.score_batch = told\n"
        "from sadi_bench.cli import main\n"
        "main()\n"
    )
    arguments = [*asked("boolq", "sadi-head"), "seed=6", "runs_dir=terminated"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert "stopping after this batch; once more stops at once" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((folder / "terminated").glob("*/.shards/*/00000-*.safetensors"))
    assert os.listdir(folder / "terminated")
