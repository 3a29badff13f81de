"""What names a run, and what made it."""

import dataclasses
import shutil

import pytest

from sadi_bench.identity import code_of, departures, identifier_of, other_code
from sadi_bench.models.spec import FinetuneSpec, ModelSpec, PackagedModel
from sadi_bench.provenance import PACKAGE, library_versions
from sadi_bench.scoring.judges.spec import JudgeSpec
from sadi_bench.settings import RunConfig
from sadi_bench.steering.methods import sadi
from sadi_bench.tasks.spec import HubSource, TaskSpec

METHOD = {"kind": "sadi", "name": "sadi-head", "top_k": [1, 2]}


def config(**settings) -> RunConfig:
    return RunConfig(**{"method": METHOD, **settings})


def test_the_id_is_short_and_the_same_on_every_machine():
    task = TaskSpec(name="copa", hub=HubSource(path="a/b", test=["test"]))
    full = config(task=task, model=ModelSpec(package=PackagedModel(name="small")), seed=3)
    assert identifier_of(full, "f00d") == "772d8711c556"


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"protocol": "paper"},
        {"task": TaskSpec(fewshot=1)},
        {"task": TaskSpec(hub=HubSource(path="a/b"))},
        {"model": ModelSpec(package=PackagedModel())},
        {"finetune": FinetuneSpec("sft")},
        {"method": {**METHOD, "top_k": [2, 1]}},
        {"method": {**METHOD, "name": "mine"}},
        {"method": {**METHOD, "steps": "every_step"}},
    ],
)
def test_what_can_change_a_result_changes_the_id(other):
    assert identifier_of(config(**other), "f00d") != identifier_of(config(), "f00d")


def test_other_data_change_the_id():
    assert identifier_of(config(), "beef") != identifier_of(config(), "f00d")


@pytest.mark.parametrize(
    "same",
    [
        {"runs_dir": "elsewhere", "force": True, "keep": True, "debug": True, "workers": 9},
        {"judge": JudgeSpec("toxigen-offline")},  # it comes afterwards
        {"method": {**METHOD, "strength": 5.0, "steps": None}},  # as if it were not given
        {"method": dict(reversed(METHOD.items()))},
    ],
)
def test_what_cannot_change_a_result_keeps_the_id(same):
    assert identifier_of(config(**same), "f00d") == identifier_of(config(), "f00d")


def test_a_judge_that_gives_the_metric_is_part_of_the_id(tmp_path):
    (tmp_path / "annotated_train.csv").write_text("")
    task = TaskSpec(process_results="judged")
    first, second = (
        config(task=task, judge=JudgeSpec("toxigen-offline", data_dir=str(path)))
        for path in (tmp_path, f"{tmp_path}/.")
    )
    assert identifier_of(first, "f00d") != identifier_of(second, "f00d")


def extended(settings):
    """The same settings under a schema with one more field, at its default."""
    schema = dataclasses.make_dataclass(
        type(settings).__name__,
        [("brand_new", list, dataclasses.field(default_factory=lambda: [1.5, (2, 3)]))],
        bases=(type(settings),),
    )
    return schema(**vars(settings))


DEPARTING = {
    "task": TaskSpec(name="copa", fewshot=5),
    "model": ModelSpec(name="small", dtype="float32"),
    "finetune": FinetuneSpec("sft", epochs=1),
}


@pytest.mark.parametrize("group", [*DEPARTING, "judge"])
def test_a_new_field_with_a_default_keeps_every_id(group, tmp_path):
    (tmp_path / "annotated_train.csv").write_text("")
    judge = JudgeSpec("toxigen-offline", data_dir=str(tmp_path))
    judged = TaskSpec(name="toxigen", process_results="judged")
    known = config(task=judged, judge=judge) if group == "judge" else config(**DEPARTING)
    grown = dataclasses.replace(known, **{group: extended(getattr(known, group))})
    assert identifier_of(grown, "f00d") == identifier_of(known, "f00d")
    assert identifier_of(extended(known), "f00d") == identifier_of(known, "f00d")


def test_a_new_field_of_a_method_keeps_every_id_and_its_departure_changes_it(monkeypatch):
    known = identifier_of(config(), "f00d")
    grown = dataclasses.make_dataclass(
        "Grown", [("decay", float, 0.5)], bases=(sadi.Sadi,), frozen=True
    )
    monkeypatch.setattr(sadi, "METHOD", grown)
    assert identifier_of(config(), "f00d") == known
    assert identifier_of(config(method={**METHOD, "decay": 0.5}), "f00d") == known
    assert identifier_of(config(method={**METHOD, "decay": 0.25}), "f00d") != known


def test_departures_are_nested_and_plain():
    task = TaskSpec(name="copa", hub=HubSource(test=["a"]))
    assert departures(task) == {"name": "copa", "hub": {"test": ["a"]}}
    assert departures(ModelSpec(package=PackagedModel())) == {"package": {}}
    assert departures(TaskSpec()) == {}


@pytest.fixture
def edited(tmp_path):
    """A copy of the package in which one file was edited."""

    def copy(name: str):
        folder = tmp_path / name.replace("/", "-")
        shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
        with (folder / name).open("a") as file:
            file.write("# edited\n")
        return folder

    return copy


JUDGED = {
    "no judge": config(),
    "afterwards": config(judge=JudgeSpec("toxigen-offline")),
    "decides": config(task=TaskSpec(process_results="judged"), judge=JudgeSpec("toxigen-offline")),
}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("results/tables.py", set()),
        ("tasks/recipe.py", set(JUDGED)),
        ("models/packing.py", set(JUDGED)),
        ("batches/executor.py", set(JUDGED)),
        ("steering/methods/sadi.py", set(JUDGED)),
        ("scoring/frame.py", set(JUDGED)),
        ("scoring/judges/offline.py", {"decides"}),
    ],
)
def test_the_digest_is_of_what_computes_and_of_judges_where_they_decide(edited, name, changed):
    folder = edited(name)
    found = {kind for kind, c in JUDGED.items() if code_of(c, folder) != code_of(c)}
    assert found == changed


def test_what_made_a_run_is_said_with_what_is_here():
    code = code_of(config())
    assert code["libraries"] == library_versions()
    assert other_code({"sadi_bench": {"code": code}}, code) is None
    older = {**code, "libraries": {**code["libraries"], "torch": "1.0"}}
    here = library_versions()["torch"]
    assert other_code({"sadi_bench": {"code": older}}, code) == f"torch 1.0 (here: {here})"
    changed = other_code({"sadi_bench": {"code": {**code, "digest": "0"}}}, code)
    assert changed == "other code of tasks, models, steering or scoring"
    assert other_code({"sadi_bench": {}}, code).startswith(f"{changed}, torch of unknown version")
