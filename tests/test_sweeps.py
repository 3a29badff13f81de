"""A sweep tells a line a run and sums up how all ended, whatever starts its runs."""

import csv
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from tqdm import tqdm

from sadi_bench import experiment, stages
from sadi_bench.batches.stopping import Terminated
from sadi_bench.disk import held
from sadi_bench.errors import SettingError, SweepFailed
from sadi_bench.heartbeat import heartbeat
from sadi_bench.results.formatting import MAX_WIDTH
from sadi_bench.sweeps.planned import planned_runs, sweep_id
from sadi_bench.sweeps.run_outcome import DONE, FAILED, RUNNING, Outcome, outcome_of, recorded
from sadi_bench.sweeps.summary import Summary
from sadi_bench.sweeps.sweeping import sweep
from sadi_bench.sweeps.watching import Watch
from terminal import SMALL, Finished, place_of_runs, small_run

PROGRAM = (sys.executable, "-m", "sadi_bench.cli")


def slurm_runs() -> bool:
    asked = shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True)
    return bool(asked) and asked.returncode == 0


LAUNCHERS = [
    pytest.param("basic", marks=()),
    pytest.param(
        "submitit_local",
        marks=pytest.mark.skipif(
            find_spec("submitit") is None, reason="pip install 'sadi-bench[slurm]'"
        ),
    ),
    pytest.param(
        "ray",
        marks=pytest.mark.skipif(find_spec("ray") is None, reason="pip install 'sadi-bench[ray]'"),
    ),
    pytest.param(
        "submitit_slurm",
        marks=[
            pytest.mark.slurm,
            pytest.mark.skipif(not slurm_runs(), reason="no Slurm: scripts/one_node_slurm.sh"),
        ],
    ),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    yield from place_of_runs(tmp_path)


def rows_of(folder: Path) -> list[dict[str, str]]:
    (file,) = folder.glob("sweeps/*.csv")
    return list(csv.DictReader(io.StringIO(file.read_text())))


def lines_of(finished: Finished) -> list[str]:
    return [line for line in finished.out.splitlines() if re.match(r"\[\d+/\d+\] ", line)]


def test_a_sweep_tells_a_line_a_run_and_ends_with_a_table(folder):
    finished = small_run(folder, "-m", "seed=0,1")
    assert (finished.code, finished.err) == (0, "")
    found = [re.sub(r"[\d.]+ → [\d.]+|\d+ s$", "#", line) for line in lines_of(finished)]
    assert found == [
        f"[{n + 1}/2] boolq tiny-random sadi-head seed={n}: acc # (held out), #" for n in (0, 1)
    ]
    assert "run directory:" not in finished.out
    assert re.search(r"\n2 runs in \d+ s: 2 done\n\ntask +model +method +swept +uns", finished.out)
    assert [row["state"] for row in rows_of(folder)] == ["done", "done"]
    assert {path.name for path in (folder / "runs").iterdir()} == {
        Path(row["run_directory"]).name for row in rows_of(folder)
    }
    assert len(list((folder / "sweeps").iterdir())) == 2


def test_the_same_sweep_again_finds_its_runs_and_writes_the_same_file(folder):
    small_run(folder, "-m", "seed=0,1")
    before = {path.name for path in (folder / "sweeps").iterdir()}
    again = small_run(folder, "-m", "seed=0,1", "force=false")
    assert [line.endswith(" (held out), finished before") for line in lines_of(again)] == [True] * 2
    assert {path.name for path in (folder / "sweeps").iterdir()} == before


def test_a_failing_run_stands_last_with_its_cause_and_its_command(folder):
    finished = small_run(folder, "-m", "method.top_k=0,2", "method.strength=3")
    assert finished.code == 1
    assert "Error executing job" not in finished.err + finished.out
    cause = "method.top_k=0: choose a whole number of at least 1."
    assert lines_of(finished)[0].endswith(f": failed: {cause}")
    first, last = rows_of(folder)
    assert (first["state"], last["state"], last["cause"]) == ("done", "failed", cause)
    assert last["command"].endswith(" method.top_k=0 method.strength=3")
    assert finished.out.rstrip().endswith(last["command"])
    (told,) = finished.complaints
    assert re.fullmatch(r"sadi-bench: 1 of 2 runs failed; \S+/sweeps/\w+.md says why .*", told)


def test_a_cause_that_runs_share_is_said_once(folder):
    finished = small_run(folder, "-m", "task.data_dir=/nowhere", "seed=0,1,2")
    assert finished.code == 1
    assert finished.out.count("no folder /nowhere") == 2  # at the first run, and at the end
    assert [line.rpartition(": ")[2] for line in lines_of(finished)[1:]] == [
        "failed like run 1"
    ] * 2
    assert "3 runs failed like boolq tiny-random sadi-head seed=0: task.data_dir" in finished.out
    assert finished.out.rstrip().endswith(" seed=0,1,2")
    assert "/nowhere" in rows_of(folder)[2]["cause"]


def test_a_failing_run_leaves_its_config_and_its_error(folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(stages, "score_grid", lambda *_: [].pop())
        finished = small_run(folder, "-m", "seed=0,1")
    assert finished.code == 1
    assert "Traceback" not in finished.err + finished.out
    for row in rows_of(folder):
        assert re.fullmatch(r"IndexError: pop from empty list \(.*, line \d+\)", row["cause"])
        left = Path(row["run_directory"])
        names = {path.name for path in left.iterdir()} - {".shards"}
        assert names == {"config.yaml", "error.txt", "log.txt"}
        assert (left / "error.txt").read_text().startswith("Traceback (most recent call last):")
        assert "top_k" in (left / "config.yaml").read_text()
    assert small_run(folder, "-m", "seed=0,1").code == 0
    assert not list(folder.glob("runs/*/error.txt"))


def test_a_run_of_its_own_that_fails_keeps_one_line_and_an_older_result(folder, monkeypatch):
    path = small_run(folder).path
    config = (path / "config.yaml").read_bytes()

    def refused(*_):
        raise SettingError("too\nlong")

    monkeypatch.setattr(stages, "score_grid", refused)
    finished = small_run(folder, "force=true")
    assert (finished.code, finished.complaints) == (2, ["sadi-bench: too long"])
    assert (path / "error.txt").read_text() == "too long\n"
    assert (path / "config.yaml").read_bytes() == config


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_a_stopped_sweep_still_says_what_is_done(folder, monkeypatch, stop, code):
    run = experiment.run

    def stopped(config, session):
        if config.seed == 1:
            raise stop
        return run(config, session)

    monkeypatch.setattr(experiment, "run", stopped)
    finished = small_run(folder, "-m", "seed=0,1,2")
    assert finished.code == code
    assert [row["state"] for row in rows_of(folder)] == ["done", "stopped", "not run"]
    assert "3 runs in " in finished.out


def test_a_mistake_in_any_run_s_settings_is_told_before_the_first(folder):
    finished = small_run(folder, "-m", "method.top_k=2", "task.n_test=6,x")
    assert finished.code == 2
    assert finished.complaints == ["sadi-bench: task.n_test=x: expected a whole number."]
    assert not (folder / "runs").exists()
    assert not (folder / "sweeps").exists()


def test_a_sweep_that_another_process_does_is_not_done_twice(tmp_path):
    with (
        held(tmp_path / "abc.lock"),
        pytest.raises(SettingError, match="abc: another process is doing this very sweep; wait"),
    ):
        sweep((), tmp_path / "abc", "sadi-bench", lambda: pytest.fail("a run was started"))


def test_a_launcher_that_starts_nothing_is_told_in_one_line(tmp_path):
    def launch():
        raise RuntimeError("no\nsuch partition")

    with pytest.raises(SettingError, match="^hydra/launcher: no such partition$"):
        sweep((), tmp_path / "abc", "sadi-bench", launch)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_is_a_failed_run_and_the_rest_is_told(tmp_path, capsys):
    runs = planned_runs([["seed=0"], ["seed=1"]], [("t", "m", "k")] * 2, [])

    def launch():
        (tmp_path / "abc" / "0.json").write_text(f'{{"state": "{RUNNING}", "began": 1}}')
        raise RuntimeError("out of memory")

    with pytest.raises(SweepFailed, match="2 of 2 runs failed"):
        sweep(runs, tmp_path / "abc", "sadi-bench", launch)
    out = capsys.readouterr().out
    assert "t m k seed=0 failed: its process ended without an answer (out of memory?)" in out
    assert "t m k seed=1 failed: it never began; RuntimeError: out of memory" in out


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_does_the_runs_in_other_processes_too(folder, launcher):
    small = [*SMALL, f"task.data_dir={folder / 'boolq'}", f"hydra/launcher={launcher}"]
    small = [s for s in small if not s.startswith("method.top_k")]
    finished = subprocess.run(
        [*PROGRAM, "-m", *small, "method.top_k=0,2"], capture_output=True, text=True, cwd=folder
    )
    assert finished.returncode == 1, finished.stderr
    found = rows_of(folder / "results")
    assert [(row["state"], row["cause"]) for row in found] == [
        ("done", ""),
        ("failed", "method.top_k=0: choose a whole number of at least 1."),
    ]
    assert (folder / found[0]["run_directory"] / "result.json").is_file()
    assert {path.name for path in folder.iterdir()} <= {"boolq", "results", "cache"}


@pytest.mark.skipif(find_spec("submitit") is None, reason="pip install 'sadi-bench[slurm]'")
def test_a_run_that_submitit_moves_begins_anew_with_the_same_command(folder):
    """What a Slurm job gets before its time is over is sent to a local one."""
    small = [*SMALL, f"task.data_dir={folder / 'boolq'}", "hydra/launcher=submitit_local"]
    command = subprocess.Popen(
        [*PROGRAM, "-m", *small, "seed=0"], stdout=subprocess.PIPE, text=True, cwd=folder
    )
    outcomes = folder / "results" / "sweeps"
    deadline = time.monotonic() + 100
    while not (files := list(outcomes.glob("*/0.json"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    (controller,) = children(command.pid)
    (job,) = children(controller)
    began = outcome_of(files[0].parent, 0).began
    os.kill(job, signal.SIGUSR2)
    out, _ = command.communicate(timeout=100)
    assert command.returncode == 0, out
    (row,) = rows_of(folder / "results")
    assert row["state"] == "done"
    assert float(row["seconds"]) < time.time() - began - 1  # of its second life alone


def children(pid: int) -> list[int]:
    """List the processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.parametrize(("missing", "extra"), [("ray", "ray"), ("submitit_slurm", "slurm")])
def test_a_launcher_that_is_not_installed_names_what_installs_it(folder, missing, extra):
    code = (
        "import sys, hydra.core.config_store as c\n"
        "from hydra.core.plugins import Plugins\n"
        "Plugins.instance()\n"
        f"c.ConfigStore.instance().repo['hydra']['launcher'].pop('{missing}.yaml', None)\n"
        "from sadi_bench.cli import main; main()"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, "-m", f"hydra/launcher={missing}", "seed=0,1"],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    assert finished.returncode == 2
    assert finished.stderr == (
        f"sadi-bench: hydra/launcher needs a package more: pip install 'sadi-bench[{extra}]'.\n"
    )


def test_a_run_that_is_stopped_says_so_and_one_that_never_began_too(tmp_path):
    def stopped() -> Outcome:
        raise SystemExit

    with pytest.raises(SystemExit):
        recorded(tmp_path, 0, stopped)
    assert [outcome_of(tmp_path, number).state for number in (0, 1)] == ["stopped", "not run"]


def test_a_command_keeps_flags_and_quotes_lists():
    typed = ["-m", "--config-dir", "my own", "method.top_k=[1,2]", "seed=0,1"]
    job = ["method.top_k=[1,2]", "seed=0"]
    (run,) = planned_runs([job], [("t", "m", "k")], typed)
    assert run.command == "sadi-bench --config-dir 'my own' 'method.top_k=[1,2]' seed=0"


def test_a_sweep_s_id_follows_its_runs_and_nothing_else():
    first = sweep_id([["seed=0", "force=true"], ["seed=1", "force=true"]], ["force"])
    assert first == sweep_id([["seed=1"], ["seed=0"]], ["force"])
    assert first != sweep_id([["seed=0"], ["seed=2"]], ["force"])


def test_a_summary_fits_a_terminal():
    names = [("a task with a long name", "a model " * 6, "a method " * 6)] * 2
    typed = [[f"seed={n}", f"task.doc_to_text={'x' * 60}{n}"] for n in range(2)]
    runs = planned_runs(typed, names, [])
    outcomes = [Outcome(DONE, 1, 2, metric="acc", unsteered=0.5, heldout=0.75),
                Outcome(FAILED, 1, 2, cause="word " * 60)]  # fmt: skip
    text = Summary(list(zip(runs, outcomes, strict=True)), "sadi-bench", 3).text()
    command = runs[1].command
    assert max(len(line) for line in text.splitlines() if command not in line) <= MAX_WIDTH
    assert "acc 50.0 → 75.0" in text


def test_what_is_under_way_is_said_with_the_time_left(tmp_path):
    runs = planned_runs([[f"seed={n}"] for n in range(4)], [("copa", "m", "k")] * 4, [])

    (tmp_path / "0.json").write_text('{"state": "done", "seconds": 60, "metric": "acc"}')
    began = time.time() - 180
    (tmp_path / "1.json").write_text(f'{{"state": "{RUNNING}", "began": {began}}}')
    watch = Watch(tmp_path, runs, tqdm(total=4, disable=True))
    watch.look()
    assert watch.now() == "[2/4] copa m k seed=1: 3 min, about 2 min left"


def test_a_heartbeat_is_a_line_where_there_is_no_terminal(capsys, monkeypatch):
    beaten = threading.Event()

    def text() -> str:
        beaten.set()
        return "still here"

    with heartbeat(text, every=0.01):
        assert beaten.wait(10)
    assert capsys.readouterr().err.startswith("still here\n")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with heartbeat(lambda: pytest.fail("a line on a terminal"), every=0.01):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""
