"""A finished run is shown at once, unless other code or other libraries made it."""

import json
from pathlib import Path

import pytest

from damage import flip
from sadi_bench.provenance import library_versions
from terminal import Finished, command, small_run, write_rows
from text_runs import refused, stand_alone

AT_ONCE = "this run was finished before; force=true computes it again"
OTHER_CODE = "this run was made by other code of tasks, models, steering or scoring"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_rows(folder / "boolq")
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    stand_alone(folder, monkeypatch)


def made_by(path: Path, **code) -> None:
    """Let result.json say that it was made by this code."""
    result = json.loads((path / "result.json").read_text())
    result["sadi_bench"]["code"] |= code
    (path / "result.json").write_text(json.dumps(result))


def date(finished: Finished) -> float:
    return finished.result["date"]


def test_the_same_code_shows_a_finished_run_at_once(folder):
    first = small_run(folder)
    assert set(first.result["sadi_bench"]["code"]) == {"digest", "libraries"}
    made = date(first)
    for typed in ((), ("keep=true",)):
        again = small_run(folder, *typed)
        assert AT_ONCE in again.err
        assert (again.path, again.out, date(again)) == (first.path, first.out, made)


def test_a_run_that_other_code_made_is_computed_again_under_the_same_name(folder):
    first = small_run(folder)
    digest, made = first.result["sadi_bench"]["code"]["digest"], date(first)
    made_by(first.path, digest="0" * 64)
    again = small_run(folder)
    assert f"{OTHER_CODE}; computing it again (keep=true shows it as it is)\n" in again.err
    assert AT_ONCE not in again.err
    assert again.path == first.path
    assert date(again) > made
    assert again.result["sadi_bench"]["code"]["digest"] == digest
    assert AT_ONCE in small_run(folder).err


def test_keep_shows_what_other_code_made_and_says_so(folder):
    first = small_run(folder)
    made_by(first.path, digest="0" * 64)
    kept = small_run(folder, "keep=true")
    assert f"keep=true: {OTHER_CODE}; force=true computes it again\n" in kept.err
    assert (kept.path, kept.out, date(kept)) == (first.path, first.out, date(first))
    forced = small_run(folder, "keep=true", "force=true")
    assert forced.code == 0
    assert forced.result["sadi_bench"]["code"]["digest"] != "0" * 64


@pytest.mark.parametrize("library", ["torch", "transformers", "tokenizers", "lm_eval"])
def test_a_run_that_other_libraries_made_is_computed_again(folder, library):
    first = small_run(folder)
    libraries = first.result["sadi_bench"]["code"]["libraries"]
    made_by(first.path, libraries={**libraries, library: "0.0.1"})
    again = small_run(folder)
    here = library_versions()[library]
    assert f"this run was made by {library} 0.0.1 (here: {here}); computing" in again.err
    assert again.result["sadi_bench"]["code"]["libraries"] == libraries


def test_a_run_that_does_not_say_what_made_it_is_computed_again(folder):
    first = small_run(folder)
    result = json.loads((first.path / "result.json").read_text())
    del result["sadi_bench"]["code"]
    (first.path / "result.json").write_text(json.dumps(result))
    again = small_run(folder)
    assert f"{OTHER_CODE}, torch of unknown version (here: " in again.err
    assert "code" in again.result["sadi_bench"]


def test_a_finished_run_is_checked_before_it_is_shown(folder):
    path = small_run(folder, "force=true").path
    files = json.loads((path / "result.json").read_text())["sadi_bench"]["files"]
    assert {"config.yaml", "elements.csv", "grid.parquet", "steering.safetensors"} <= files.keys()
    for name in files:
        flip(path / name)
        shown = command("show", str(path))
        assert refused(shown, f"{path / name}: cannot be read: not the file that was written")
        assert shown.out == ""
        assert "force=true" in shown.complaints[0]
        flip(path / name)
    flip(path / "grid.parquet")
    for asked in (small_run(folder), small_run(folder, "keep=true"),
                  command("apply", str(path), "prompt=a")):  # fmt: skip
        assert refused(asked, f"{path / 'grid.parquet'}: cannot be read: not the file")
        assert asked.out == ""
    (path / "grid.parquet").unlink()
    assert refused(small_run(folder), f"{path / 'grid.parquet'}: cannot be read: No such file")
    mended = small_run(folder, "force=true")
    assert (mended.code, mended.path) == (0, path)
    assert AT_ONCE in small_run(folder).err
