"""A finished run is replaced as a whole: a kill at any moment leaves the old one or the new one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from damage import contents
from sadi_bench.disk import held
from sadi_bench.errors import SettingError
from sadi_bench.results.reading import load_result, load_run
from sadi_bench.results.run_dir import writing_run

ONCE = """
import os, signal, sys
from pathlib import Path
import pandas as pd
from sadi_bench.results.reading import load_result
from sadi_bench.results.run_dir import writing_run

def compute(runs, name, number):
    with writing_run(runs, name) as run:
        run.write_config(f"number: {number}")
        run.write_grid([pd.DataFrame({"number": [number] * 9})])
        if number == 1:
            run.write_also("copa", [pd.DataFrame({"number": [1]})])
        text = {"split": "test", "doc_id": 3, "cell": 0, "text": str(number)}
        run.write_texts([text])
        run.finish({"number": number, "sadi_bench": {"task": "copa"}})

def judge(runs, name, number):
    with writing_run(runs, name) as run:
        result = load_result(run.path)
        result["sadi_bench"].setdefault("judged", {})["mild"] = {"note": number}
        row = {"split": "test", "doc_id": 3, "cell": 0, "true": number}
        run.add_judged("mild", [row], result)

def killed(call, step):
    real, left = os.replace, step
    def counted(*paths):
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return real(*paths)
    os.replace = counted
    call()
"""
KILLED = """
import shutil
runs, call = Path(sys.argv[1]), {"compute": compute, "judge": judge}[sys.argv[2]]
for step in range(99):
    shutil.copytree(runs / "old", runs / str(step))
    child = os.fork()
    if not child:
        killed(lambda: call(runs, str(step), 2), step)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def python(code: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-c", ONCE + code, *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """A finished run with texts that were judged once."""
    folder = tmp_path_factory.mktemp("moves")
    python('compute(sys.argv[1], "old", 1); judge(sys.argv[1], "old", 1)', folder)
    return folder / "old"


def number_of(path: Path) -> tuple[str, str | None]:
    """Return the number that all files of a run tell, and that of its judge."""
    run = load_run(path)
    (number,) = {run.config[-1], str(run.result["number"]), str(run.grid["number"][8]),
                 run.texts[0]["text"]}  # fmt: skip
    judged = run.texts[0].get("judged", {}).get("mild", {}).get("true")
    said = run.result["sadi_bench"].get("judged", {}).get("mild", {}).get("note")
    assert judged == said
    return number, judged


@pytest.mark.parametrize(("call", "new"), [("compute", ("2", None)), ("judge", ("1", 2))])
def test_a_kill_at_any_rename_leaves_the_old_run_or_the_new_one(old, tmp_path, call, new):
    shutil.copytree(old, tmp_path / "old")
    python(KILLED, tmp_path, call)
    steps = sorted(tmp_path.glob("[0-9]*"), key=lambda path: int(path.name))
    found = []
    for path in steps:
        before = {name for name in contents(path) if not name.startswith(".new-")}
        assert "result.json" in before
        found.append(number_of(path))
        assert not list(path.glob(".new-*/result.json"))
        with writing_run(tmp_path, path.name):
            pass
        assert not list(path.glob(".*"))
        assert number_of(path) == found[-1]
    first_new = found.index(new)
    assert 0 < first_new < len(found) - 2  # killed before it was whole, and while it was moved
    assert found == [("1", 1)] * first_new + [new] * (len(found) - first_new)
    assert contents(steps[first_new]) == contents(steps[-1])
    assert bool(list(steps[-1].glob("also-*"))) == (call == "judge")


def test_a_reader_beside_a_writer_sees_whole_runs(old, tmp_path):
    shutil.copytree(old, tmp_path / "run")
    code = 'for number in range(2, 9): compute(sys.argv[1], "run", number)'
    with subprocess.Popen([sys.executable, "-c", ONCE + code, str(tmp_path)]) as writer:
        seen = []
        while writer.poll() is None:
            seen.append(number_of(tmp_path / "run")[0])
    assert writer.returncode == 0
    assert seen == sorted(seen)
    assert number_of(tmp_path / "run")[0] == "8"


def test_a_run_that_cannot_be_moved_up_says_so_in_one_line(old, tmp_path, monkeypatch):
    path = tmp_path / "run"
    shutil.copytree(old, path)

    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch, writing_run(tmp_path, "run") as run:
        run.write_config("number: 2")
        patch.setattr(os, "replace", forbidden)
        with pytest.raises(SettingError, match="cannot be written: Permission denied"):
            run.finish({"sadi_bench": {}})
    assert number_of(path) == ("1", 1)


def test_who_reads_while_the_files_are_moved_waits(old, tmp_path):
    """The mover holds the run; its moves were all done when the reader gets it."""
    path = tmp_path / "run"
    shutil.copytree(old, path)
    staged = path / ".new-0"
    staged.mkdir()
    shutil.copy(path / "result.json", staged)
    code = "print(load_result(sys.argv[1])['number'])"
    with held(path / ".lock"):
        reader = subprocess.Popen(
            [sys.executable, "-c", ONCE + code, str(path)], stdout=subprocess.PIPE, text=True
        )
        with pytest.raises(subprocess.TimeoutExpired):
            reader.wait(4)
        shutil.rmtree(staged)
    assert reader.communicate(timeout=30)[0] == "1\n"


def test_a_full_disk_leaves_a_finished_run_as_it_was(old, tmp_path):
    shutil.copytree(old, tmp_path / "run")
    before = contents(tmp_path / "run")
    code = """
import resource
from sadi_bench.errors import SettingError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    compute(sys.argv[1], "run", 2)
except SettingError as error:
    assert "cannot be written: File too large" in str(error), error
else:
    raise AssertionError
"""
    for room in (5, 100, 400):  # for no file; for the config; for all but the grid
        python(code, tmp_path, room)
        assert contents(tmp_path / "run") == before
    assert load_result(tmp_path / "run")["number"] == 1
