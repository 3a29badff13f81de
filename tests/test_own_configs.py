"""YAMLs of one's own are found beside ours: by --config-dir, and in an installed package."""

import json
import sys

import pytest

from terminal import command

MINE = """\
name: mine
doc_to_text: "{{question}}\\nAnswer:"
doc_to_choice: [Yes, No]
doc_to_target: label
label_map: {right: 0, wrong: 1}
"""
FEW = ("model=tiny-random", "method.top_k=2", "method.strength=5")


def write(folder, group, name, text):
    (folder / group).mkdir(parents=True, exist_ok=True)
    (folder / group / f"{name}.yaml").write_text(text)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with own/task/mine.yaml, own/method/soft.yaml and rows.csv."""
    write(tmp_path / "own", "task", "mine", MINE.replace("[Yes, No]", '["Yes", "No"]'))
    write(tmp_path / "own", "method", "soft", "name: soft\nkind: sadi\ntop_k: 1\nstrength: 2\n")
    rows = [f"is it {i}?,{('right', 'wrong')[i % 2]}" for i in range(24)]
    (tmp_path / "rows.csv").write_text("\n".join(["question,label", *rows]) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_a_task_and_a_method_of_ones_own_are_run_by_their_names():
    finished = command(
        "--config-dir", "own", "task=mine", "task.data_dir=rows.csv", "method=soft",
        "model=tiny-random", "runs_dir=runs",
    )  # fmt: skip
    assert (finished.code, finished.complaints) == (0, [])
    assert "mine, tiny-random, soft, 0-shot: n = 12 test documents" in finished.out


PLACES = [("--config-dir", "own"), ("hydra.searchpath=[pkg://own_package.conf]",)]


@pytest.fixture(params=PLACES, ids=["folder", "package"])
def place(request, folder, monkeypatch):
    """What makes the YAMLs known: a folder, or an installed package that carries them."""
    package = folder / "site" / "own_package"
    package.mkdir(parents=True)
    (folder / "own" / "__init__.py").write_text("")
    if request.param[0] != "--config-dir":
        (folder / "own").rename(package / "conf")
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(folder / "site")
    yield request.param
    for name in ("own_package", "own_package.conf"):
        sys.modules.pop(name, None)


def test_help_lists_them_with_ours(place):
    words = command(*place, "--help").out.replace(",", " ").split()
    assert {"mine", "soft", "copa", "sadi-head"} <= {*words}


def test_they_compose(place):
    shown = command(*place, "task=mine", "--cfg", "job").out
    assert "  name: mine\n" in shown
    assert "  label_map:\n    right: 0\n    wrong: 1\n" in shown


def test_an_unknown_name_has_them_among_the_known(place):
    assert command(*place, "task=min").complaints == [
        "sadi-bench: task=min: unknown. Did you mean mine?"
    ]
    assert ", soft, tda." in command(*place, "method=x").complaints[0]


def test_the_name_of_another_task_is_refused_there_too(place):
    line = command(*place, "task.name=mine").complaints[0]
    assert line.startswith("sadi-bench: task.name=mine: the name of another task than the chosen m")


def test_a_name_of_ours_is_refused_rather_than_passed_over(folder):
    write(folder / "own", "task", "copa", MINE)
    (line,) = command("--config-dir", "own", "task=copa").complaints
    assert line.startswith("sadi-bench: task=copa: ")
    assert line.endswith("/own/task/copa.yaml have this name; rename the file of your own.")


@pytest.mark.usefixtures("folder")
def test_a_task_file_without_a_name_says_so(folder):
    write(folder / "own", "task", "mine", MINE.replace("name: mine\n", ""))
    (line,) = command("--config-dir", "own", "task=mine", *FEW).complaints
    assert line == (
        "sadi-bench: task.name: empty; choose a task (task=copa, for instance) or name your own."
    )


def test_rows_by_lm_evals_words_are_run_by_the_command(folder):
    rows = [{"question": f"is it {i}?", "label": ("right", "wrong")[i % 2]} for i in range(24)]
    for name, part in (("train", rows[:12]), ("test", rows[12:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    words = "dataset_path: json\ndata_files: {train: train.jsonl, test: test.jsonl}\n"
    write(folder / "own", "task", "words", "defaults: [mine, _self_]\nname: words\n" + words
          + "training_split: train\ntest_split: test\n")  # fmt: skip
    finished = command("--config-dir", "own", "task=words", "runs_dir=runs", *FEW)
    assert (finished.code, finished.complaints) == (0, [])
    assert "words, tiny-random, sadi-head, 0-shot: n = 12 test documents" in finished.out
