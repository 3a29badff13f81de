import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save

from sadi_bench.errors import SettingError
from sadi_bench.results.reading import load_result, load_run
from sadi_bench.results.run_dir import is_complete, writing_run

RESULT = {"results": {"copa": {"acc,none": float("nan")}}, "sadi_bench": {"task": "copa"}}
SCORES = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-500, 500).clip(-300, 300)
ELEMENTS = pd.DataFrame({"rank": range(1000), "layer": 3, "index": range(1000), "score": SCORES})
PAIRS = [{"prompt": "a\u2028b\n", "positive": "ใช่", "negative": "B", "doc_id": 0, "tokens": [1, 2]}]
JUDGED_TEXT = {"split": "test", "doc_id": 3, "cell": 0}
STEERING = {"difference": np.arange(6, dtype=np.float32).reshape(3, 2), "mask": np.eye(2) > 0}


def write_all(run, grid):
    run.write_config("task: copa  # ข้อความ\n")
    run.write_pairs(PAIRS)
    run.write_docs({"split": "test", "doc_id": np.int64(i)} for i in range(3))
    run.write_elements(ELEMENTS)
    run.write_grid([grid])
    run.write_steering(save(STEERING, metadata={"site": "head"}))


def judge(run, kind="mild", score=1.0, padding=""):
    """Add a judge's decisions, with its entry of result.json, to the run that is open."""
    result = load_result(run.path)
    result["sadi_bench"].setdefault("judged", {})[kind] = {"note": f"{score}{padding}"}
    run.add_judged(kind, [{**JUDGED_TEXT, "true": score, "padding": padding}], result)


@pytest.fixture
def written(tmp_path, grid):
    """A finished run with texts."""
    with writing_run(tmp_path, "abc") as run:
        write_all(run, grid)
        run.write_texts([{**JUDGED_TEXT, "text": "a"}, {**JUDGED_TEXT, "cell": 1, "text": "b"}])
        run.finish(RESULT)
    return run.path


@pytest.fixture
def grid(random_grid):
    return random_grid(0)


@pytest.fixture
def finished(tmp_path, grid):
    with writing_run(tmp_path, "abc") as run:
        write_all(run, grid)
        run.finish(RESULT)
    return run.path


def command(code: str, *arguments: object) -> list[str]:
    """Return the command that runs `code`; a SettingError is printed and gives exit code 2."""
    code = f"""
import sys
import time
import pandas as pd
from sadi_bench.errors import SettingError
from sadi_bench.results.run_dir import writing_run
try:
{"".join("    " + line + chr(10) for line in code.strip().splitlines())}
except SettingError as error:
    print(error)
    sys.exit(2)
"""
    return [sys.executable, "-c", code, *map(str, arguments)]


def python(code: str, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(command(code, *arguments), capture_output=True, text=True, timeout=60)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_what_is_read(finished, grid):
    run = load_run(finished)
    assert run.config == "task: copa  # ข้อความ\n"
    assert run.pairs == PAIRS
    assert run.docs == [{"split": "test", "doc_id": i} for i in range(3)]
    pd.testing.assert_frame_equal(run.elements, ELEMENTS, check_exact=True)
    logprobs = run.grid["choice_logprobs"].map(list)
    pd.testing.assert_frame_equal(run.grid.assign(choice_logprobs=logprobs), grid)
    assert run.grid.loc[run.grid["cell"] == 0, "top_k"].isna().all()
    assert run.tensors.keys() == STEERING.keys()
    for name, tensor in STEERING.items():
        np.testing.assert_array_equal(run.tensors[name], tensor)
    assert run.result["results"] == {"copa": {"acc,none": None}}
    assert run.result["sadi_bench"]["task"] == "copa"
    assert "files" not in RESULT["sadi_bench"]


def test_the_directory_holds_the_contract_and_nothing_else(finished):
    assert names(finished) == [
        *("config.yaml", "docs.jsonl", "elements.csv", "grid.parquet", "pairs.jsonl"),
        *("result.json", "steering.safetensors"),
    ]


def test_files_can_be_read_by_whoever_may_read_the_folder(finished):
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in finished.iterdir()} == {0o666 & ~umask}


def test_the_unsteered_model_has_no_elements_and_no_steering(tmp_path, grid):
    with writing_run(tmp_path, "abc") as run:
        run.write_grid([grid])
        run.finish(RESULT)
    loaded = load_run(run.path)
    assert loaded.elements.empty
    assert loaded.tensors == {}
    assert loaded.pairs == []


def test_a_run_is_complete_only_after_its_result(tmp_path, grid):
    with pytest.raises(RuntimeError, match="crash"), writing_run(tmp_path, "abc") as run:
        write_all(run, grid)
        raise RuntimeError("crash")
    assert not is_complete(run.path)
    with pytest.raises(SettingError, match="no finished run"):
        load_run(run.path)
    with writing_run(tmp_path, "abc") as run:
        write_all(run, grid.assign(acc=1))
        run.finish(RESULT)
    assert is_complete(run.path)
    assert load_run(run.path).grid["acc"].all()


def test_a_recomputed_run_stays_as_it_is_until_the_new_one_is_finished(finished, grid):
    before = contents(finished)
    with writing_run(finished.parent, "abc"):
        pass  # a model that fails to load, say
    with writing_run(finished.parent, "abc") as run:
        run.write_grid([grid.assign(acc=0)])
        assert load_run(finished).grid["acc"].any()
    assert contents(finished) == before
    with writing_run(finished.parent, "abc") as run:
        run.write_grid([grid.assign(acc=0)])
        run.finish(RESULT)
    assert not load_run(finished).grid["acc"].any()
    assert names(finished) == ["grid.parquet", "result.json"]  # nothing of the old one


KILLED = """
import os
with writing_run(sys.argv[1], "abc") as run:
    run.write_config("new")
    os.fsync = lambda file: (print("writing", flush=True), time.sleep(60))
    run.write_grid([pd.DataFrame({"acc": range(1000)})])
"""


def test_a_process_killed_while_writing_leaves_the_finished_run_as_it_was(finished, grid):
    before = load_run(finished)
    with subprocess.Popen(
        command(KILLED, finished.parent), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    # The kill came while the new grid was a temporary file: the old run stands.
    assert [name for name in names(finished) if name.startswith(".new-")]
    after = load_run(finished)
    assert (after.config, after.result) == (before.config, before.result)
    pd.testing.assert_frame_equal(after.grid, before.grid)
    with writing_run(finished.parent, "abc") as run:
        write_all(run, grid)
        run.finish(RESULT)
    assert not [name for name in names(finished) if name.startswith(".")]
    assert load_run(finished).config.startswith("task")


FILLED = """
with writing_run(sys.argv[1], "abc") as run:
    run.write_config("task: copa")
    run.write_grid([pd.DataFrame({"x": [str(i) * 9 for i in range(100_000)]})])
    run.finish({})
"""


def check_disk_full(done: subprocess.CompletedProcess, folder: Path, reason: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout.count("\n") == 1
    assert f"{folder / 'grid.parquet'}: cannot be written: {reason}" in done.stdout
    assert "set runs_dir=" in done.stdout


def test_a_file_over_the_limit_is_one_clear_line_and_earlier_files_stay(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
    done = python(limit + FILLED, tmp_path)
    check_disk_full(done, tmp_path / "abc", "File too large")
    assert names(tmp_path / "abc") == ["config.yaml"]
    assert (tmp_path / "abc/config.yaml").read_text() == "task: copa"


def test_a_full_disk_is_one_clear_line_and_earlier_files_stay(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        check_disk_full(python(FILLED, disk), disk / "abc", "No space left on device")
        assert names(disk / "abc") == ["config.yaml"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_judges_add_files_of_their_own_and_a_reader_finds_all_they_said_beside_the_texts(written):
    before = {path.name: path.stat().st_ino for path in written.iterdir()}
    with writing_run(written.parent, "abc") as run:
        judge(run)
        judge(run, "stern", 0.0)
    after = {path.name: path.stat().st_ino for path in written.iterdir()}
    new = {"judged-mild.jsonl", "judged-stern.jsonl"}
    assert {name for name, inode in after.items() if inode != before.get(name)} == {
        *new,
        "result.json",
    }
    first, second = load_run(written).texts
    decision = {"true": 1.0, "padding": ""}
    assert first.pop("judged") == {"mild": decision, "stern": decision | {"true": 0.0}}
    assert first == {**JUDGED_TEXT, "text": "a"}
    assert "judged" not in second
    with writing_run(written.parent, "abc") as run:
        judge(run, "mild", 0.0)
    said = load_run(written).texts[0]["judged"]
    assert [said[kind]["true"] for kind in ("mild", "stern")] == [0.0, 0.0]
    (written / "judged-mild.jsonl").write_text("")
    with pytest.raises(SettingError, match=r"judged-mild\.jsonl: cannot be read: not the file"):
        load_run(written)


def test_what_is_computed_again_has_not_been_judged(written, grid):
    with writing_run(written.parent, "abc") as run:
        judge(run)
        write_all(run, grid)
        run.write_texts([{**JUDGED_TEXT, "text": "a"}])
        run.finish(RESULT)
    assert not list(written.glob("judged*"))
    assert "judged" not in load_run(written).texts[0]


JUDGING = """
import os
from sadi_bench.results.reading import load_result
result = load_result(sys.argv[1] + "/abc")
result["sadi_bench"]["judged"] = {"mild": {"note": sys.argv[2]}}
rows = [{"split": "test", "doc_id": 3, "cell": 0, "true": 0.0, "padding": sys.argv[2]}]
with writing_run(sys.argv[1], "abc") as run:
    run.add_judged("mild", rows, result)
"""


@pytest.mark.parametrize("judged_before", [False, True])
def test_a_full_disk_costs_a_judges_decisions_but_not_the_run(written, judged_before):
    if judged_before:
        with writing_run(written.parent, "abc") as run:
            judge(run)
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    room = len(before["result.json"]) + 400  # for the decisions, but not for result.json
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))"
    done = python(limit + JUDGING, written.parent, "x" * 800)
    assert done.returncode == 2, done.stderr
    assert "cannot be written: File too large" in done.stdout
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before
    assert is_complete(written)
    assert ("judged" in load_run(written).texts[0]) is judged_before


KILLED_JUDGE = """
os.fsync = lambda file: (print("writing", flush=True), time.sleep(60))
"""


def test_a_judge_killed_while_writing_leaves_the_run_as_it_was(written):
    before = load_run(written).texts
    code = JUDGING.replace("with writing_run", KILLED_JUDGE.strip() + "\nwith writing_run")
    with subprocess.Popen(
        command(code, written.parent, ""), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert load_run(written).texts == before


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SettingError, match="file/abc: cannot be written: Not a dir.*runs_dir="),
        writing_run(tmp_path / "file", "abc"),
    ):
        pass


def test_two_processes_never_write_the_same_run_at_once(tmp_path):
    code = 'with writing_run(sys.argv[1], "abc") as run:\n    run.write_config("theirs")'
    with writing_run(tmp_path, "abc") as run:
        run.write_config("ours")
        done = python(code, tmp_path)
        assert done.returncode == 2
        assert "another process is computing this very run" in done.stdout
        assert (run.path / "config.yaml").read_text() == "ours"
    assert python(code, tmp_path).returncode == 0
    assert (run.path / "config.yaml").read_text() == "theirs"


INSISTENT = """
for attempt in range(400):
    try:
        with writing_run(sys.argv[1], "abc") as run:
            run.write_config(sys.argv[2] * 1000)
            time.sleep(0.02)
            run.write_grid([pd.DataFrame({"who": [sys.argv[2]] * 1000})])
            run.finish({"who": sys.argv[2]})
            break
    except SettingError:
        time.sleep(0.02)
else:
    sys.exit(3)
"""


def test_processes_that_insist_leave_the_files_of_one_of_them(tmp_path):
    started = [subprocess.Popen(command(INSISTENT, tmp_path, who)) for who in "ABC"]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    run = load_run(tmp_path / "abc")
    assert set(run.config) == set(run.grid["who"]) == {run.result["who"]}


@pytest.mark.parametrize(
    "name", ["config.yaml", "pairs.jsonl", "docs.jsonl", "elements.csv", "grid.parquet",
             "steering.safetensors"],
)  # fmt: skip
def test_a_missing_or_cut_off_file_is_named_with_the_remedy(finished, name):
    path = finished / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SettingError, match=rf"{name}: cannot be read: not the file.*force=true"):
        load_run(finished)
    path.unlink()
    with pytest.raises(SettingError, match=rf"{name}: cannot be read: No such file.*force=true"):
        load_run(finished)
    assert load_result(finished)["sadi_bench"]["task"] == "copa"


@pytest.mark.parametrize("content", ["", '{"results": {', "[]", "{}"])
def test_a_damaged_result_is_named_with_the_remedy(finished, content):
    (finished / "result.json").write_text(content)
    with pytest.raises(SettingError, match=r"result\.json.*force=true"):
        load_result(finished)


def test_a_damaged_grid_without_a_digest_is_named_too(finished):
    grid = finished / "grid.parquet"
    grid.write_bytes(grid.read_bytes()[:-50])
    result = json.loads((finished / "result.json").read_text())

    result["sadi_bench"]["files"]["grid.parquet"] = hashlib.sha256(grid.read_bytes()).hexdigest()
    (finished / "result.json").write_text(json.dumps(result))
    with pytest.raises(SettingError, match=r"grid\.parquet: cannot be read.*force=true") as error:
        load_run(finished)
    assert "\n" not in str(error.value)


def test_the_result_alone_is_read_without_the_grid(finished):
    (finished / "grid.parquet").unlink()
    assert load_result(finished)["sadi_bench"]["task"] == "copa"
