"""Every file of configs/ composes, and opens with the command that uses it."""

from itertools import product

import pytest
import yaml

from sadi_bench.composing import composed as settings
from sadi_bench.config import choices, config_folder
from sadi_bench.results.paper import METHODS as PAPER_METHODS
from sadi_bench.results.paper import MODELS, paper_figures, paper_tables
from sadi_bench.results.paper.averages import AVERAGES
from sadi_bench.results.paper.domains import DOMAINS
from sadi_bench.steering.methods import method_of

GROUPS = ("task", "model", "method", "finetune", "judge", "experiment")
FILES = [(group, name) for group in GROUPS for name in choices(group)]
METHODS = choices("method")
EXPERIMENTS = choices("experiment")
TABLES = sorted(int(n) for n in paper_tables()["table"].unique())


def yaml_of(group: str, name: str) -> dict:
    return yaml.safe_load((config_folder() / group / f"{name}.yaml").read_text())


def sweep(name: str) -> dict[str, list[str]]:
    """Read what an experiment varies."""
    params = yaml_of("experiment", name).get("hydra", {}).get("sweeper", {}).get("params", {})
    return {key: str(values).split(",") for key, values in params.items()}


def command_of(group: str, name: str) -> list[str]:
    """Read the overrides off a file's first line, behind Hydra's own."""
    lines = (config_folder() / group / f"{name}.yaml").read_text().splitlines()
    first = next(line for line in lines if not line.startswith("# @package"))
    assert first.startswith("# sadi-bench ")
    return first.removeprefix("# sadi-bench ").partition("  ")[0].split()


def test_the_six_groups_are_all_there_is():
    folders = {path.name for path in config_folder().iterdir() if path.is_dir()}
    assert folders == {*GROUPS, "hydra"}  # how runs are launched is no part of a run
    assert all(choices(group) for group in GROUPS)


@pytest.mark.parametrize(("group", "name"), FILES)
def test_a_file_opens_with_a_command_that_names_it_and_composes(group, name):
    overrides = command_of(group, name)
    assert f"{group}={name}" in overrides
    config = settings(*overrides)
    if group == "method":
        assert config.method["name"] == name
    if group == "finetune":
        assert config.finetune.kind == name
    if group == "model":
        package = config.model.package
        assert (config.model.name or (package and package.name) or name) == name


@pytest.mark.parametrize("name", METHODS)
def test_a_method_file_states_every_field_of_its_class_and_no_other(name):
    given = yaml_of("method", name)
    method = method_of(given)
    assert {*given} - {"name", "kind", "steps"} == {*vars(method)}


@pytest.mark.parametrize(
    ("name", "switches"),
    [
        ("sadi-head", ("head", "top", "adaptive")),
        ("random-neuron", ("neuron", "random", "adaptive")),
        ("random-hidden", ("hidden", "random", "adaptive")),
        ("fixed-norm-head", ("head", "top", "fixed_norm")),
        ("fixed-norm-neuron", ("neuron", "top", "fixed_norm")),
        ("fixed-norm-hidden", ("hidden", "top", "fixed_norm")),
        ("sadi-neuron", ("neuron", "top", "adaptive")),
        ("sadi-hidden", ("hidden", "top", "adaptive")),
        ("random-head", ("head", "random", "adaptive")),
        ("fixed-head", ("head", "top", "fixed")),
    ],
)
def test_a_method_file_sets_the_switches_its_name_promises(name, switches):
    given = settings(f"method={name}").method
    assert (given["site"], given["elements"], given["vector"]) == switches
    assert given["patch"] == "clean"
    assert given["draws"] == (19 if given["elements"] == "random" else 1)
    assert given["match"] == "none"


def test_table_4_compares_its_methods_on_one_grid_and_random_has_19_draws_of_it():
    grids = {
        name: method_of(settings("experiment=table4", f"method={name}").method).grid()
        for name in sweep("table4")["method"]
    }
    assert len(grids) == 3
    points = [(k, s) for k in (2, 6, 10) for s in (5, 20, 40, 80)]
    for name, cells in grids.items():
        found = [(cell.params["top_k"], cell.params["strength"]) for cell in cells[1:]]
        assert found == points * (19 if name == "random-head" else 1)


@pytest.mark.parametrize(("value", "top_ks"), [("4", {4}), ("[4]", {4}), ("[2,4]", {2, 4})])
def test_top_k_takes_one_value_or_a_list(value, top_ks):
    method = method_of(settings("method=sadi-head", f"method.top_k={value}").method)
    assert {cell.params["top_k"] for cell in method.grid()[1:]} == top_ks


def test_full_fine_tuning_has_the_papers_settings():
    sft = settings("finetune=sft").finetune
    assert (sft.learning_rate, sft.batch_size, sft.epochs) == (2e-6, 4, 3)


def test_the_smoke_experiment_is_small_and_downloads_no_model():
    config = settings("experiment=smoke")
    assert config.model.pretrained == "tiny-random"
    assert (config.task.n_pairs, config.task.n_select, config.task.n_test) == (20, 20, 20)
    assert len(method_of(config.method).grid()) == 1 + 4


def test_an_experiment_gives_way_to_the_command_line():
    config = settings("experiment=smoke", "task.n_test=7")
    assert (config.task.n_pairs, config.task.n_test) == (20, 7)


SWEPT = {
    (yaml_of("experiment", name).get("select_by"), task): (name, task)
    for name in EXPERIMENTS
    for task in sweep(name).get("task", [])
}


@pytest.mark.parametrize(("name", "task"), SWEPT.values())
def test_a_sweep_composes_and_chooses_as_the_paper_does(name, task):
    params = sweep(name) | {"task": [task]}
    choices_in_turn = [f"{key}={value}" for key, values in params.items() for value in values]
    config = settings(f"experiment={name}", *choices_in_turn)  # the last of each key counts
    first = config.task.process_results is not None  # then the task's first is the paper's
    assert config.select_by == "paper" or (config.select_by is None and first)
    assert config.task.name == task


def parts(table: str) -> list[str]:
    return [name for name in EXPERIMENTS if name.partition("-")[0] == table]


def rows_of(name: str) -> set[tuple]:
    """List model, task, shots and the paper's method of every run of a sweep."""
    given = yaml_of("experiment", name)
    shots = given.get("task", {}).get("fewshot", 0)
    axes = {"model": [part["override /model"] for part in given["defaults"][:1]]}
    axes |= {"finetune": ["none"], "task.fewshot": [None]} | sweep(name)
    found = set()
    keys = ("model", "task", "method", "finetune", "task.fewshot")
    for model, task, method, finetune, few in product(*(axes[key] for key in keys)):
        steering = PAPER_METHODS.get(method, method)
        trained = "sft" if method == "none" else f"sft+{method}"
        steering = steering if finetune == "none" else trained
        n_shots = int(few or shots or yaml_of("task", task).get("fewshot", 0))
        found.add((MODELS.get(model, model), task, n_shots, steering))
    return found


@pytest.mark.parametrize("table", TABLES)
def test_the_sweeps_of_a_table_make_every_row_of_it(table):
    paper = paper_tables()
    paper = paper[(paper["table"] == table) & ~paper["task"].isin(AVERAGES)]
    wanted = {
        (row.model, "mmlu" if row.task in DOMAINS else row.task, row.shots, row.method)
        for row in paper.itertuples()
    }
    made = set.union(*map(rows_of, parts(f"table{table}")))
    assert wanted <= made


def test_the_tables_and_figures_of_the_paper_each_have_a_make_target():
    makefile = (config_folder().parent / "Makefile").read_text()
    assert "$(addprefix table,1 2 3 4 5 6 7 8 9 10) figure2 figure4" in makefile
    targets = {f"table{number}" for number in range(1, 11)} | {"figure2", "figure4"}
    assert {name.partition("-")[0] for name in EXPERIMENTS} == targets | {"smoke"}


def test_figure_2s_points_are_all_in_the_grid_of_its_sweep():
    points = paper_figures()[paper_figures()["figure"] == 2]
    method = settings("experiment=figure2", "method=sadi-head").method
    assert set(points["top_k"]) <= set(method["top_k"])
    assert set(points["x"]) <= set(method["strength"])
    assert set(points["task"]) == set(sweep("figure2")["task"])


def test_figure_4_sweeps_over_the_papers_numbers_of_pairs():
    points = paper_figures()[paper_figures()["figure"] == 4]
    for name in parts("figure4"):
        assert {int(n) for n in sweep(name)["task.n_pairs"]} == set(points["x"])
    made = set.union(*map(rows_of, parts("figure4")))
    assert {method for *_, method in made} == set(points["method"])
