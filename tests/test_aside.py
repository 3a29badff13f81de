"""Large things are made aside, by one process at a time; what killed ones left is deleted."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sadi_bench.aside import delete_leftovers, install, making
from sadi_bench.disk import held
from sadi_bench.sealed import broken

MAKER = """
import errno, fcntl, logging, os, signal, sys, time
from pathlib import Path
from sadi_bench.aside import install, making
from sadi_bench.sealed import broken
logging.basicConfig(level=logging.INFO, format="%(message)s")
target, how = Path(sys.argv[1]), sys.argv[2]
if how == "without locks":
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")
    fcntl.flock = unsupported
with making(target) as scratch:
    if broken(target, {}) is not None:
        print("making", flush=True)
        (scratch / "done").mkdir()
        (scratch / "done" / "weights").write_bytes(bytes(1000))
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(1)
        install(scratch / "done", target, {})
"""


def start(target: Path, how: str = "") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", MAKER, str(target), how],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_of_two_processes_one_makes_it_and_the_other_waits(tmp_path):
    both = [start(tmp_path / "models" / "one") for _ in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted(out for out, _ in said) == ["", "making\n"]
    assert sum("another process makes it; waiting" in err for _, err in said) == 1
    assert names(tmp_path / "models") == ["one"]
    assert broken(tmp_path / "models" / "one", {}) is None


def test_without_locks_each_makes_it_and_the_first_stays(tmp_path):
    both = [start(tmp_path / "models" / "one", "without locks") for _ in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    for _, err in said:
        assert err.splitlines() == [
            f"{tmp_path / 'models'}: this file system has no locks; others may make it too"
        ]
    assert names(tmp_path / "models") == ["one"]
    assert broken(tmp_path / "models" / "one", {}) is None


def test_what_a_killed_process_left_goes_when_it_is_made_or_something_else_runs(tmp_path):
    target = tmp_path / "models" / "one"
    for clear in (lambda: start(target).communicate(timeout=60), lambda: None):
        killed = start(target, "killed")
        killed.communicate(timeout=60)
        assert killed.returncode == -signal.SIGKILL
        assert names(target.parent) == ["one.lock", "one.scratch"]
        clear()
        delete_leftovers(tmp_path)
        assert names(target.parent) == (["one"] if target.exists() else [])
        if target.exists():
            target.rename(tmp_path / "elsewhere")


def test_what_a_live_process_holds_stays(tmp_path):
    models, activations = tmp_path / "models", tmp_path / "activations"
    activations.mkdir()
    with making(models / "one") as scratch, held(activations / ".lock"):
        (scratch / "half").write_text("")
        (activations / ".a.tmp").write_text("")
        delete_leftovers(tmp_path)
        assert (scratch / "half").exists()
        assert (activations / ".a.tmp").exists()
    (models / "one.scratch").mkdir()
    delete_leftovers(tmp_path)
    assert names(models) == names(activations) == []


def test_what_older_versions_left_goes_too(tmp_path):
    for name in ("models/tmpab12", "packages/download-xy", "activations/tmpq"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("")
    (tmp_path / "packages" / "0123").mkdir()
    delete_leftovers(tmp_path)
    assert names(tmp_path / "packages") == ["0123"]
    assert names(tmp_path / "models") == names(tmp_path / "activations") == []


def test_a_training_that_can_be_gone_on_with_stays_until_it_is_done(tmp_path):
    trained = tmp_path / "finetuned"
    for name in ("done", "done.partial/trainer", "half.partial/trainer"):
        (trained / name).mkdir(parents=True)
    delete_leftovers(tmp_path)
    assert names(trained) == ["done", "half.partial"]
    with making(trained / "half", resumable=True) as scratch:
        assert (scratch / "trainer").is_dir()
    assert names(trained) == ["done", "half.partial"]


def test_a_holder_that_gives_up_leaves_the_waiter_a_folder_to_work_in(tmp_path):
    target, found = tmp_path / "finetuned" / "one", []

    def wait() -> None:
        with making(target, resumable=True) as scratch:
            (scratch / "file").write_text("")
            found.append(names(scratch))

    waiting = threading.Thread(target=wait)
    with pytest.raises(KeyboardInterrupt), making(target, resumable=True):
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        raise KeyboardInterrupt
    waiting.join(10)
    assert found == [["file"]]


def test_a_whole_folder_is_never_replaced_and_a_damaged_one_is_set_aside(tmp_path):
    target = tmp_path / "models" / "one"
    for number in "12":
        with making(target) as scratch:
            made = scratch / "done"
            made.mkdir()
            (made / "number").write_text(number)
            install(made, target, {})
        assert (target / "number").read_text() == "1"
    (target / "number").write_text("0")
    with making(target) as scratch:
        (scratch / "done").mkdir()
        install(scratch / "done", target, {})
    assert names(target) == ["sealed.json"]
    assert (tmp_path / "damaged" / "models-one" / "number").read_text() == "0"


def test_a_cache_without_locks_leaves_no_lock_file(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with making(tmp_path / "one", resumable=True) as scratch:
        (scratch / "half").write_text("")
    assert names(tmp_path) == []
