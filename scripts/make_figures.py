"""Draw Figures 2 to 7 of the paper from the finished runs of a folder.

python scripts/make_figures.py --model smollm2-135m --runs results/runs --out results/figures
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

from sadi_bench.results.paper import our_metric, paper_figures
from sadi_bench.results.paper.figure_numbers import (
    PAIRS_METHODS,
    layer_counts,
    overlaps,
    pairs_curve,
    strength_curves,
)
from sadi_bench.results.paper.reproduction import reproduced
from sadi_bench.results.paper.table_runs import result_at
from sadi_bench.results.reading import Run, load_run
from sadi_bench.results.run_dir import is_complete

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

PAPER_MODEL = "llama2-7b-chat"
UNSTEERED_LINE = {"color": "0.4", "ls": "--", "lw": 1, "label": "unsteered"}
LAYERS_TASK, LAYERS_TOP = "storycloze", 100
SITES = {"head": "heads", "neuron": "neurons", "hidden": "hidden coordinates"}
OVERLAP_TOP = {"head": 10, "neuron": 100, "hidden": 10}
TABLES = {"copa": 1, "storycloze": 1, "sst2": 1, "triviaqa": 3}  # where a task's run stands, too


def main() -> None:
    """Draw every figure that has at least one run of a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="default: every model that has runs")
    parser.add_argument("--runs", type=Path, default=Path("results/runs"))
    parser.add_argument("--out", type=Path, default=Path("results/figures"))
    args = parser.parse_args()
    folders = sorted(args.runs.iterdir()) if args.runs.is_dir() else []
    results = {path.name: result_at(path) for path in folders if is_complete(path)}
    models = sorted({result["model"] for result in results.values()})
    args.out.mkdir(parents=True, exist_ok=True)
    for model in [args.model] if args.model else models:
        theirs = {run: result for run, result in results.items() if result["model"] == model}
        for name, draw in DRAWINGS.items():
            figure = draw(model, theirs, args.runs)
            if figure is not None:
                path = args.out / f"{name}-{model.replace('/', '-')}.png"
                figure.savefig(path, dpi=150)
                plt.close(figure)
                print(path)


def _strengths(model: str, results: Mapping, runs: Path) -> plt.Figure | None:
    """Draw paper_match over strength: a panel a task, above ours and below the paper's."""
    found = {}
    for task, table in TABLES.items():
        rows = reproduced(table, model, results)
        rows = rows[(rows["task"] == task) & (rows["method"] == "sadi-head") & (rows["runs"] != "")]
        if len(rows):
            found[task] = rows.iloc[0]
    if not found:
        return None
    paper = paper_figures()
    paper = paper[paper["figure"] == 2]
    top_ks = sorted(paper["top_k"].unique())
    colors = dict(zip(top_ks, plt.get_cmap("viridis")([0, 0.25, 0.5, 0.75, 0.92]), strict=True))
    size = (3.2 * len(found) + 1.2, 5.4)
    figure, axes = plt.subplots(2, len(found), figsize=size, layout="constrained", squeeze=False)
    for column, (task, row) in enumerate(found.items()):
        grid = load_run(runs / row["runs"].split()[0]).grid
        means, unsteered, split = strength_curves(grid, our_metric(task, "exact_match"))
        ours = 100 * means
        theirs = paper[paper["task"] == task].pivot(index="x", columns="top_k", values="value")
        titles = (
            f"{task}, {model}, {split} n = {len(unsteered)}",
            f"{task}, paper ({PAPER_MODEL})",
        )
        for axis, title, curves in zip(axes[:, column], titles, (ours, theirs), strict=True):
            for top_k in top_ks:
                if top_k in curves:
                    label = f"K = {top_k:g}"
                    axis.plot(curves[top_k], marker="o", ms=3, color=colors[top_k], label=label)
            axis.set(title=title, ylim=(-3, 103), xlim=(0, 85), xlabel="strength")
            axis.title.set_fontsize(9)
        axes[0, column].axhline(100 * unsteered.mean(), **UNSTEERED_LINE)
    for axis in axes[:, 0]:
        axis.set_ylabel("the paper's exact match, %")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    return figure


def _pairs(model: str, results: Mapping, _runs: Path) -> plt.Figure | None:
    """Draw paper_match on COPA over the number of pairs: ours held out, and the paper's."""
    ours = pairs_curve(model, results)
    if ours.empty or ours["pairs"].nunique() < 2:
        return None
    paper = paper_figures()
    paper = paper[paper["figure"] == 4]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
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
    return figure


def _with_interval(axis: plt.Axes, rows: pd.DataFrame, label: str, look: dict) -> None:
    values = 100 * rows[["heldout", "ci95_low", "ci95_high"]].astype(float)
    axis.plot(rows["pairs"], values["heldout"], label=label, **look)
    axis.fill_between(
        rows["pairs"],
        values["ci95_low"],
        values["ci95_high"],
        color=look["color"],
        alpha=0.12,
        lw=0,
    )


def _layers_of_one_task(model: str, results: Mapping, runs: Path) -> plt.Figure | None:
    """Draw how StoryCloze's top elements lie over the layers: a panel a granularity."""
    return _layers(model, _element_runs(model, results, runs, [LAYERS_TASK]))


def _layers_of_all_tasks(model: str, results: Mapping, runs: Path) -> plt.Figure | None:
    """Draw the same, a row a task."""
    return _layers(model, _element_runs(model, results, runs))


def _layers(model: str, found: Mapping[str, Mapping[str, Run]]) -> plt.Figure | None:
    tasks = list(dict.fromkeys(task for by_task in found.values() for task in by_task))
    if not tasks:
        return None
    figure, axes = plt.subplots(
        len(tasks),
        len(SITES),
        figsize=(10, 1.1 * len(tasks) + 1.7),
        layout="constrained",
        squeeze=False,
        sharex=True,
        sharey="col",
    )
    for column, (site, by_task) in enumerate(found.items()):
        for axis, task in zip(axes[:, column], tasks, strict=True):
            if run := by_task.get(task):
                num_layers, num_elements = run.steering["element_scores"].shape
                counts = layer_counts(run.elements, LAYERS_TOP, num_layers)
                axis.bar(counts.index, counts, width=0.8, color=f"C{column}")
                total = f"top {LAYERS_TOP} of {num_layers * num_elements:,}"
                axes[0, column].set_title(f"{SITES[site]}: {total}", fontsize=9)
            axis.spines[["top", "right"]].set_visible(False)
            axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes[-1, column].set_xlabel("layer, counted from 0", fontsize=9)
    for axis, task in zip(axes[:, 0], tasks, strict=True):
        axis.set_ylabel(task, fontsize=9)
    figure.suptitle(f"{model}: elements in each layer, by task", fontsize=10)
    return figure


def _overlap(model: str, results: Mapping, runs: Path) -> plt.Figure | None:
    """Draw how many of their top elements two tasks share: a matrix a granularity."""
    found = _element_runs(model, results, runs)
    shown = {site: by_task for site, by_task in found.items() if len(by_task) > 1}
    if not shown:
        return None
    largest = max(map(len, shown.values()))
    size = (len(shown) * (0.42 * largest + 1.7), 0.42 * largest + 1.9)
    figure, axes = plt.subplots(1, len(shown), figsize=size, layout="compressed", squeeze=False)
    for axis, (site, by_task) in zip(axes[0], shown.items(), strict=True):
        top = OVERLAP_TOP[site]
        matrix = overlaps({task: run.elements for task, run in by_task.items()}, top)
        axis.imshow(matrix, cmap="Blues", vmin=0, vmax=top)
        for (row, column), count in np.ndenumerate(matrix.to_numpy()):
            color = "white" if count > 0.6 * top else "black"
            axis.text(column, row, count, ha="center", va="center", color=color, fontsize=8)
        axis.set_xticks(range(len(matrix)), matrix.columns, rotation=90, fontsize=8)
        axis.set_yticks(range(len(matrix)), matrix.index, fontsize=8)
        axis.set_title(f"{SITES[site]}, top {top}", fontsize=9)
    figure.suptitle(f"{model}: elements that two tasks share", fontsize=10)
    return figure


def _element_runs(
    model: str, results: Mapping, runs: Path, tasks: Sequence[str] | None = None
) -> dict[str, dict[str, Run]]:
    """Load SADI's runs of Table 1: granularity → task → run."""
    rows = reproduced(1, model, results)
    rows = rows[(rows["runs"] != "") & (rows["task"].isin(tasks) if tasks else True)]
    return {
        site: {
            row.task: load_run(runs / row.runs.split()[0])
            for row in rows[rows["method"] == f"sadi-{site}"].itertuples()
        }
        for site in SITES
    }


DRAWINGS = {
    "figure2": _strengths,
    "figure3": _layers_of_one_task,
    "figure4": _pairs,
    "figure5": _overlap,
    "figures6-7": _layers_of_all_tasks,
}

if __name__ == "__main__":
    main()
