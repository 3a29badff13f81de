"""Draw Figures 2 and 4 of the paper: exact match over strength, and over the number of pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sadi_bench.results.paper import our_metric, paper_figures
from sadi_bench.results.paper.figure_files import Drawn
from sadi_bench.results.paper.figure_numbers import PAIRS_METHODS, pairs_curve, strength_curves
from sadi_bench.results.paper.reproduction import reproduced
from sadi_bench.results.paper.table_runs import Result
from sadi_bench.results.reading import load_run

PAPER_MODEL = "llama2-7b-chat"
UNSTEERED_LINE = {"color": "0.4", "ls": "--", "lw": 1, "label": "unsteered"}
TABLES = {"copa": 1, "storycloze": 1, "sst2": 1, "triviaqa": 3}
"""Figure 2's tasks → a table that their runs fill a row of, too."""


def strengths(model: str, results: Mapping[str, Result], runs_dir: Path) -> Drawn | None:
    """Draw Figure 2: a panel a task, above ours and below the paper's."""
    found = {}
    for task, table in TABLES.items():
        rows = reproduced(table, model, results)
        rows = rows[(rows["task"] == task) & (rows["method"] == "sadi-head") & (rows["runs"] != "")]
        if len(rows):
            found[task] = rows.iloc[0]["runs"].split()[0]
    if not found:
        return None
    figure = Figure(figsize=(3.2 * len(found) + 1.2, 5.4), layout="constrained")
    axes = figure.subplots(2, len(found), squeeze=False)
    for column, (task, run) in enumerate(found.items()):
        _strengths_of_a_task(tuple(axes[:, column]), task, model, runs_dir / run)
    for axis in axes[:, 0]:
        axis.set_ylabel("the paper's exact match, %")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    return Drawn(figure, tuple(found.values()))


def _strengths_of_a_task(axes: Sequence[Axes], task: str, model: str, run: Path) -> None:
    """Draw one task's curves, a colour a top_k: ours on the first axis, the paper's below."""
    paper = paper_figures()
    paper = paper[paper["figure"] == 2]
    top_ks = sorted(paper["top_k"].unique())
    colors = mpl.colormaps["viridis"]([0, 0.25, 0.5, 0.75, 0.92])
    means, unsteered, split = strength_curves(load_run(run).grid, our_metric(task, "exact_match"))
    theirs = paper[paper["task"] == task].pivot(index="x", columns="top_k", values="value")
    drawn = {
        f"{task}, {model}, {split} n = {len(unsteered)}": 100 * means,
        f"{task}, paper ({PAPER_MODEL})": theirs,
    }
    for axis, (title, curves) in zip(axes, drawn.items(), strict=True):
        for top_k, color in zip(top_ks, colors, strict=True):
            if top_k in curves:
                axis.plot(curves[top_k], marker="o", ms=3, color=color, label=f"K = {top_k:g}")
        axis.set(title=title, ylim=(-3, 103), xlim=(0, 85), xlabel="strength")
        axis.title.set_fontsize(9)
    axes[0].axhline(100 * unsteered.mean(), **UNSTEERED_LINE)


def pairs(model: str, results: Mapping[str, Result], _runs_dir: Path) -> Drawn | None:
    """Draw Figure 4, COPA over the number of pairs: ours held out, and the paper's."""
    ours = pairs_curve(model, results)
    if ours.empty or ours["pairs"].nunique() < 2:
        return None
    paper = paper_figures()
    paper = paper[paper["figure"] == 4]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for number, method in enumerate(PAIRS_METHODS):
        rows, theirs = ours[ours["method"] == method], paper[paper["method"] == method]
        look = {"color": f"C{number}", "marker": "o", "ms": 4}
        if len(rows):
            _with_interval(axes[0], rows, method, look)
            oracle = 100 * rows["oracle"].astype(float)
            axes[0].plot(rows["pairs"], oracle, ls=":", color=look["color"])
        axes[1].plot(theirs["x"], theirs["value"], label=method, **look)
    axes[0].plot([], [], color="0.4", ls=":", label="its oracle cell")
    axes[0].set(
        title=f"copa, {model}, n = {ours['n'].iloc[0]}",
        ylabel="the paper's exact match on test, %",
    )
    axes[1].set(title=f"paper ({PAPER_MODEL}), best cell on test; read off its plot")
    for axis in axes:
        axis.set(xlabel="contrastive pairs", xlim=(0, 1000), ylim=(-3, 103))
        axis.title.set_fontsize(9)
        axis.legend(frameon=False, fontsize=8)
    return Drawn(figure, tuple(ours["run"]))


def _with_interval(axis: Axes, rows: pd.DataFrame, label: str, look: dict) -> None:
    values = 100 * rows[["heldout", "ci95_low", "ci95_high"]].astype(float)
    axis.plot(rows["pairs"], values["heldout"], label=label, **look)
    band = {"color": look["color"], "alpha": 0.12, "lw": 0}
    axis.fill_between(rows["pairs"], values["ci95_low"], values["ci95_high"], **band)
