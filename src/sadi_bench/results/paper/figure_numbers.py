"""What Figures 2 to 7 of the paper show, read off runs: numbers to draw, beside the paper's."""

from collections.abc import Mapping

import pandas as pd

from sadi_bench.results.grid import UNSTEERED
from sadi_bench.results.paper.table_runs import Result, setting_of

PAIRS_TASK = "copa"
PAIRS_METRIC = "paper_match"
PAIRS_METHODS = ("sadi-head", "sadi-neuron", "sadi-hidden", "sft")


def strength_curves(grid: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, pd.Series, str]:
    """Return means by strength (rows) and top_k (columns), the unsteered documents, their split.

    They are of the test split if every cell was scored there; of texts only the cells that the
    select split left in the race were, so theirs are of the select split. Cells that are not finite
    on every document are left out.
    """
    cells_of = grid.groupby("split")["cell"].nunique()
    split = max(cells_of.index, key=lambda name: (cells_of[name], name == "test"))
    part = grid[grid["split"] == split]
    finite = part.groupby("cell")["finite"].transform("all")
    steered = part[(part["cell"] != UNSTEERED) & finite]
    means = steered.pivot_table(index="strength", columns="top_k", values=metric, aggfunc="mean")
    return means, part.loc[part["cell"] == UNSTEERED, metric], split


def pairs_curve(model: str, results: Mapping[str, Result]) -> pd.DataFrame:
    """Return method, pairs, heldout, ci95_low, ci95_high, oracle, n, n_select, run of COPA's runs.

    Of all runs those on the most test documents count, of these those that select on as many as
    most do, and of these those whose other settings most have; of several with as many pairs
    (seeds) the first.
    """
    rows = []
    for run, result in results.items():
        report, names = result["protocols"], result["paper"]
        place = (names["task"], result["fewshot"], result["model"], report["metric"])
        method = names["method"]
        if place != (PAIRS_TASK, 0, model, PAIRS_METRIC) or method not in PAIRS_METHODS:
            continue
        steered = report.get("oracle") is not None
        chosen = report["heldout" if steered else "unsteered"]
        found = chosen["metrics"][PAIRS_METRIC] if chosen else {}
        low, high = found.get("ci95") or (None, None)
        oracle = report["oracle"]["metrics"][PAIRS_METRIC]["value"] if steered else None
        rows.append(
            {"method": method, "pairs": result["counts"]["pairs"],
             "heldout": found.get("value"), "ci95_low": low, "ci95_high": high, "oracle": oracle,
             "n": result["counts"]["test"], "n_select": result["counts"].get("select", 0),
             "run": run, "setting": _setting_but_pairs(result)}
        )  # fmt: skip
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame = frame[frame["n"] == frame["n"].max()]
    for most in ("n_select", "setting"):
        frame = frame[frame[most] == frame[most].mode().iloc[0]]
    frame = frame.drop(columns="setting").sort_values(["method", "pairs"], kind="stable")
    return frame.drop_duplicates(["method", "pairs"], ignore_index=True)


def _setting_but_pairs(result: Result) -> str:
    """Return what the points of one curve share: all but the method, seeds and number of pairs."""
    config = dict(result["config"])
    config["task"] = {key: value for key, value in config["task"].items() if key != "n_pairs"}
    return setting_of({**result, "config": config}, method=False)


def layer_counts(elements: pd.DataFrame, top: int, num_layers: int) -> pd.Series:
    """Count how many of the `top` elements lie in each layer, counted from 0 (Figures 3, 6, 7).

    `elements` has columns rank (from 0), layer, index and score, as elements.csv.
    """
    layers = elements.loc[elements["rank"] < top, "layer"]
    return layers.value_counts().reindex(range(num_layers), fill_value=0).rename_axis("layer")


def overlaps(elements: Mapping[str, pd.DataFrame], top: int) -> pd.DataFrame:
    """Count the elements that are among the `top` of two tasks, for every two (Figure 5)."""
    sets = {
        task: {*zip(frame["layer"], frame["index"], strict=True)}
        for task, each in elements.items()
        for frame in [each[each["rank"] < top]]
    }
    counts = {one: [len(sets[one] & sets[other]) for other in sets] for one in sets}
    return pd.DataFrame(counts, index=list(sets))
