"""The verbs behind the command."""

import subprocess
import sys

import pytest

from sadi_bench.verbs import VERBS, call
from terminal import SMALL, Finished, command, small_run, write_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verbs")
    write_rows(folder / "boolq")
    return folder


@pytest.fixture(scope="module")
def finished(folder) -> Finished:
    return small_run(folder)


def test_run_may_be_said(folder, finished):
    where = f"task.data_dir={folder / 'boolq'}", f"runs_dir={folder / 'runs'}"
    said = command("run", *SMALL, *where)
    assert said.code == 0
    assert said.out == finished.out


def test_show_prints_the_runs_own_table(folder, finished):
    for words in ([str(finished.path)], [finished.path.name, f"runs_dir={folder / 'runs'}"]):
        found = command("show", *words)
        assert found.code == 0
        ours, theirs = (
            each.out.partition("run directory:")[0].rstrip() for each in (found, finished)
        )
        assert ours == theirs


def test_show_prints_documents(finished):
    found = command("show", str(finished.path), "--docs", "all", "limit=2")
    assert found.code == 0
    assert found.out.count("gold") >= 1 or "right" in found.out


def test_lists_have_a_line_a_choice_and_fit(folder, finished):
    for what, names in (
        ("tasks", ["copa", "pairs"]),
        ("models", ["smollm2-135m", "llama2-7b"]),
        ("methods", ["sadi-head", "caa"]),
    ):
        found = command("ls", what)
        assert found.code == 0
        lines = found.out.splitlines()
        assert max(map(len, lines)) <= 100
        assert set(names) <= {line.split()[0] for line in lines}
        assert all(len(line.split()) > 1 for line in lines)
    runs = command("ls", "runs", f"runs_dir={folder / 'runs'}")
    assert finished.path.name in runs.out


def test_the_version_is_told():
    found = command("--version")
    assert (found.code, found.out) == (0, "sadi-bench 0.1.0\n")


def test_the_cache_tells_its_room_and_gives_it_back(monkeypatch, tmp_path):
    monkeypatch.setenv("SADI_BENCH_CACHE", str(tmp_path))
    (tmp_path / "activations").mkdir()
    (tmp_path / "activations" / "one").write_bytes(bytes(2_000_000))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "two").write_bytes(bytes(1_000_000))
    assert "activations        2.0" in command("cache").out
    assert "2.0  MB freed" in command("cache", "prune", "activations").out
    assert not (tmp_path / "activations").exists()
    assert (tmp_path / "models" / "two").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shwo"], "shwo: unknown. Did you mean show"),
        (["show"], "show: 0 names are typed; say sadi-bench show RUN"),
        (["show", "nowhere"], "no finished run"),
        (["show", "x", "colour=red"], "show.colour: no such setting"),
        (["show", "x", "--docs", "some"], "docs=some: choose all or flipped"),
        (["show", "x", "--docs", "all", "limit=0"], "limit=0: choose a whole number of at least 1"),
        (["compare", "one"], "compare: 1 names are typed"),
        (["ls", "planets"], "ls=planets: unknown"),
        (["cache", "clean"], "cache=clean: unknown"),
        (["cache", "prune"], "cache prune: which part?"),
        (["cache", "prune", "everything"], "unknown"),
        (["export", "x"], "export: where to?"),
        (["tables", "runs_dir=nowhere"], "runs_dir=nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words, message):
    found = command(*words)
    assert found.code == 2
    assert len(found.complaints) == 1 and message in found.complaints[0]


def test_every_verb_says_how_it_is_called():
    assert all(verb.usage.split()[0] == name for name, verb in VERBS.items())
    assert all(verb.call.__doc__ for verb in VERBS.values())
    assert callable(call)


def test_the_package_is_the_command_too():
    done = subprocess.run(
        [sys.executable, "-m", "sadi_bench", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "sadi-bench 0.1.0\n"
