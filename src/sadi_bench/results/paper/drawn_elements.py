"""Draw Figures 3 and 5 to 7 of the paper: where the best elements lie, and which tasks share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sadi_bench.results.paper.figure_files import Drawn
from sadi_bench.results.paper.figure_numbers import layer_counts, overlaps
from sadi_bench.results.paper.reproduction import reproduced
from sadi_bench.results.paper.table_runs import Result
from sadi_bench.results.reading import Run, load_run

LAYERS_TASK, LAYERS_TOP = "storycloze", 100
SITES = {"head": "heads", "neuron": "neurons", "hidden": "hidden coordinates"}
OVERLAP_TOP = {"head": 10, "neuron": 100, "hidden": 10}


def layers_of_one_task(model: str, results: Mapping[str, Result], runs_dir: Path) -> Drawn | None:
    """Draw Figure 3, how StoryCloze's best elements lie over the layers: a panel a site."""
    return _layers(model, _element_runs(model, results, runs_dir, [LAYERS_TASK]))


def layers_of_all_tasks(model: str, results: Mapping[str, Result], runs_dir: Path) -> Drawn | None:
    """Draw Figures 6 and 7, the same with a row a task."""
    return _layers(model, _element_runs(model, results, runs_dir))


def _layers(model: str, found: Mapping[str, Mapping[str, Run]]) -> Drawn | None:
    tasks = list(dict.fromkeys(task for by_task in found.values() for task in by_task))
    if not tasks:
        return None
    figure = Figure(figsize=(10, 1.1 * len(tasks) + 1.7), layout="constrained")
    axes = figure.subplots(len(tasks), len(SITES), squeeze=False, sharex=True, sharey="col")
    for column, (site, by_task) in enumerate(found.items()):
        for axis, task in zip(axes[:, column], tasks, strict=True):
            if run := by_task.get(task):
                num_layers, num_elements = run.tensors["element_scores"].shape
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
    return _drawn(figure, found)


def overlap(model: str, results: Mapping[str, Result], runs_dir: Path) -> Drawn | None:
    """Draw Figure 5, how many of their best elements two tasks share: a matrix a site."""
    found = _element_runs(model, results, runs_dir)
    shown = {site: by_task for site, by_task in found.items() if len(by_task) > 1}
    if not shown:
        return None
    largest = max(map(len, shown.values()))
    size = (len(shown) * (0.42 * largest + 1.7), 0.42 * largest + 1.9)
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots(1, len(shown), squeeze=False)
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
    return _drawn(figure, found)


def _drawn(figure: Figure, found: Mapping[str, Mapping[str, Run]]) -> Drawn:
    runs = [run.path.name for by_task in found.values() for run in by_task.values()]
    return Drawn(figure, tuple(runs))


def _element_runs(
    model: str,
    results: Mapping[str, Result],
    runs_dir: Path,
    tasks: Sequence[str] | None = None,
) -> dict[str, dict[str, Run]]:
    """Load SADI's runs of Table 1: site → task → run."""
    rows = reproduced(1, model, results)
    rows = rows[(rows["runs"] != "") & (rows["task"].isin(tasks) if tasks else True)]
    return {
        site: {
            row.task: load_run(runs_dir / row.runs.split()[0])
            for row in rows[rows["method"] == f"sadi-{site}"].itertuples()
        }
        for site in SITES
    }
