"""Locks and whole files: nothing is left behind, and nobody is let in twice."""

import errno
import fcntl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import Timeout

from sadi_bench.disk import held, sha256, write_atomically

COUNTING = """
import sys
from pathlib import Path
from sadi_bench.disk import held
lock, count = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(30):
    with held(lock, wait=lambda: None) as locked:
        assert locked
        before = int(count.read_text())
        count.write_text(str(before + 1))
"""


def test_a_lock_leaves_no_file_behind(tmp_path):
    with held(tmp_path / ".lock") as locked:
        assert locked
        with pytest.raises(Timeout), held(tmp_path / ".lock"):
            pass
    assert not list(tmp_path.iterdir())


def test_who_waits_is_told_once_and_goes_on(tmp_path):
    told, done = [], []

    def wait() -> None:
        with held(tmp_path / ".lock", wait=lambda: told.append(1)) as locked:
            done.append(locked)

    with held(tmp_path / ".lock"):
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(0.3)
        assert (told, done) == ([1], [])
    waiting.join(10)
    assert done == [True]


def test_processes_that_wait_for_each_other_never_work_at_once(tmp_path):
    """Each reads a number and writes the next; a lock that let two in would lose one."""
    count = tmp_path / "count"
    count.write_text("0")
    command = [sys.executable, "-c", COUNTING, str(tmp_path / ".lock"), str(count)]
    environment = {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "PATH": "/usr/bin:/bin"}
    started = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert count.read_text() == "90"


def test_contents_take_their_place_together_or_not_at_all(tmp_path):
    write_atomically({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    with pytest.raises(TypeError):
        write_atomically({tmp_path / "a": b"3", tmp_path / "b": "no bytes"})
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"1", b"2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert sha256(tmp_path / "a").startswith("6b86b273ff34fce1")


def test_a_file_system_without_locks_is_no_error(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with held(tmp_path / ".lock") as locked:
        assert not locked


def test_a_lock_that_may_not_be_taken_is_not_passed_by(tmp_path, monkeypatch):
    def forbidden(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(fcntl, "flock", forbidden)
    with pytest.raises(PermissionError), held(tmp_path / ".lock"):
        pass
