"""Choose the runs that fill a row of a table: runs of one setting, which differ in the seed alone.

A result here is the `sadi_bench` part of result.json with two more keys, which `result_at` adds:
`config`, the run's resolved config, and `paper`, the paper's names of it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sadi_bench.errors import SettingError, unknown_name
from sadi_bench.results.paper.matching import paper_names
from sadi_bench.results.reading import load_config, load_result
from sadi_bench.results.run_dir import is_complete

Result = Mapping[str, object]
NO_SETTING = ("runs_dir", "force", "keep", "debug", "token_budget")
"""What a config says beside the settings that numbers follow from."""
GRID = ("site", "top_k", "strength", "delta")


class Place(NamedTuple):
    """Say where a run belongs: what two runs must share to stand in the same row."""

    task: str | None
    shots: int
    english_pairs: bool
    model: str
    metric: str
    """That the cell was chosen by."""
    method: str | None


class Sizes(NamedTuple):
    """Count a run's documents and cells."""

    test: int
    select: int
    pairs: int
    cells: int


def finished_runs(runs_dir: Path) -> list[Path]:
    """List the finished runs of a folder by name; other folders, such as tables/, are none.

    Raises:
        SettingError: there is no such folder, or no finished run in it.
    """
    folders = sorted(runs_dir.iterdir()) if runs_dir.is_dir() else []
    if found := [path for path in folders if is_complete(path)]:
        return found
    raise SettingError(
        f"runs_dir={runs_dir}: no finished run there; make one, or name the folder that has runs."
    )


def named_result(path: Path) -> dict[str, Any]:
    """Read a finished run's result.json; `config` and `paper` are added to its `sadi_bench` part.

    Which of the paper's numbers may stand beside a run is found out here, from its config, so that
    a table follows what is known of the paper now.
    """
    result, config = load_result(path), load_config(path)
    ours = result["sadi_bench"] | {"config": config, "paper": paper_names(config)}
    return result | {"sadi_bench": ours}


def result_at(path: Path) -> dict[str, Any]:
    """Read the `sadi_bench` part of a finished run's result.json, as `named_result` returns it."""
    return named_result(path)["sadi_bench"]


def of_model(results: Mapping[str, Result], model: str | None) -> list[str]:
    """Name the models whose runs are wanted: the one asked for, or all.

    Raises:
        SettingError: none of the results is of the model.
    """
    models = sorted({str(result["model"]) for result in results.values()})
    if model is not None and model not in models:
        raise unknown_name("model", model, models)
    return models if model is None else [model]


def place_of(result: Result) -> Place:
    """Return the row that a run belongs to."""
    names, metric = result["paper"], result["protocols"]["metric"]
    english = bool(result.get("english_pairs"))
    return Place(
        names["task"], result["fewshot"], english, result["model"], metric, names["method"]
    )


def sizes_of(result: Result) -> Sizes:
    """Return what a run counted; a split that it lacks has no documents."""
    return Sizes(*(result["counts"].get(split, 0) for split in Sizes._fields))


def setting_of(result: Result, *, method: bool = True, seeds: bool = False) -> str:
    """Return all that numbers follow from, as text: the config and the code that computed them.

    Without `method`, what steers and whether the model was fine-tuned are left out.
    """
    left_out = {*NO_SETTING, *(() if seeds else ("seed",))}
    left_out |= set() if method else {"method", "finetune"}
    config = {key: value for key, value in result["config"].items() if key not in left_out}
    if method and not seeds:
        config["method"] = {k: v for k, v in config["method"].items() if k != "seed"}
    return json.dumps([config, result.get("code")], sort_keys=True)


def grid_of(result: Result) -> tuple[frozenset, ...]:
    """Return the sets of values that a method's cells are made of."""
    values = [result["config"]["method"].get(key) for key in GRID]
    return tuple(frozenset(value if isinstance(value, list) else [value]) for value in values)


def runs_of(
    place: Place,
    candidates: Mapping[str, str | None],
    methods: Sequence[str],
    results: Mapping[str, Result],
) -> list[str]:
    """Choose a row's runs among `candidates`, which are at its place: run → its judge's note.

    Of all settings the one with the most test documents counts; of these the one whose sizes most
    of the table's `methods` have, then the paper's judge (it has no note), then the grid and the
    other settings that most methods have, then the largest sizes, then the most runs (seeds).
    """
    beside = [
        (other.method, result)
        for result in results.values()
        if (other := place_of(result))[:-1] == place[:-1] and other.method in methods
    ]
    groups: dict[str, list[str]] = {}
    for run, note in candidates.items():
        key = json.dumps([setting_of(results[run]), sizes_of(results[run]), note])
        groups.setdefault(key, []).append(run)

    def rank(key: str) -> tuple:
        first = groups[key][0]
        preference = _preference(results[first], candidates[first], beside)
        return (*preference, len(groups[key]), key)

    return groups[max(groups, key=rank)] if groups else []


def _preference(
    result: Result, note: str | None, beside: Sequence[tuple[str | None, Result]]
) -> tuple:
    """Return what decides between settings, the most important first; see `runs_of`."""
    sizes = sizes_of(result)

    def shared(what: Callable[[Result], object]) -> int:
        return len({method for method, other in beside if what(other) == what(result)})

    return (
        sizes.test,
        shared(lambda other: sizes_of(other)[:-1]),
        note is None,
        shared(grid_of),
        shared(lambda other: setting_of(other, method=False)),
        sizes,
    )
