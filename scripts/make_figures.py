"""Draw Figures 2 and 4 of the paper from the finished runs of a folder, the paper's beside them.

python scripts/make_figures.py --model smollm2-135m --runs results/runs --out results/figures
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import pandas as pd

from sadi_bench.results.figures import PAIRS_METHODS, pairs_curve, strength_curves
from sadi_bench.results.loading import load_result, load_run
from sadi_bench.results.paper import paper_figures
from sadi_bench.results.reproduction import reproduced
from sadi_bench.results.run_dir import is_complete

mpl.use("Agg")
import matplotlib.pyplot as plt

PAPER_MODEL = "llama2-7b-chat"
UNSTEERED_LINE = {"color": "0.4", "ls": "--", "lw": 1, "label": "unsteered"}
TABLES = {"copa": 1, "storycloze": 1, "sst2": 1, "triviaqa": 3}  # where a task's run stands, too


def main() -> None:
    """Draw every figure that has at least one run of a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="default: every model that has runs")
    parser.add_argument("--runs", type=Path, default=Path("results/runs"))
    parser.add_argument("--out", type=Path, default=Path("results/figures"))
    args = parser.parse_args()
    folders = sorted(args.runs.iterdir()) if args.runs.is_dir() else []
    results = {p.name: load_result(p)["sadi_bench"] for p in folders if is_complete(p)}
    models = sorted({result["model"] for result in results.values()})
    args.out.mkdir(parents=True, exist_ok=True)
    for model in [args.model] if args.model else models:
        theirs = {run: result for run, result in results.items() if result["model"] == model}
        for number, draw in {2: _strengths, 4: _pairs}.items():
            figure = draw(model, theirs, args.runs)
            if figure is not None:
                path = args.out / f"figure{number}-{model.replace('/', '-')}.png"
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
        means, unsteered, split = strength_curves(grid)
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
        axis.set_ylabel("paper_match, %")
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
    axes[0].set(title=f"copa, {model}, n = {ours['n'].iloc[0]}", ylabel="paper_match on test, %")
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


if __name__ == "__main__":
    main()
