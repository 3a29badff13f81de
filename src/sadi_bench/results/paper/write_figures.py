"""Draw Figures 2 to 7 of the paper from the finished runs of a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sadi_bench.errors import SettingError
from sadi_bench.results.paper.table_runs import finished_runs, of_model, result_at

if TYPE_CHECKING:
    from sadi_bench.results.paper.figure_files import Drawn

FOLDER = "figures"
"""Where figures go beside the runs, unless another place is asked for."""


def write_figures(runs_dir: Path, to: Path | None = None, model: str | None = None) -> list[str]:
    """Draw every figure that the finished runs of a folder have numbers for; return a line each.

    `to` is `runs_dir/figures` where it is not given, `model` every model that has runs. What
    `put_figures` keeps is said.

    Raises:
        SettingError: matplotlib is not installed; there are no runs, none of the model, none that a
            figure shows, or no figure may be replaced.
    """
    drawings = _drawings()
    results = {path.name: result_at(path) for path in finished_runs(runs_dir)}
    drawn: dict[str, tuple[Drawn, int]] = {}
    for name in of_model(results, model):
        theirs = {run: result for run, result in results.items() if result["model"] == name}
        for figure, draw in drawings.items():
            if found := draw(name, theirs, runs_dir):
                n_documents = sum(results[run]["counts"]["test"] for run in found.runs)
                drawn[f"{figure}-{name.replace('/', '-')}.png"] = found, n_documents
    if not drawn:
        raise SettingError(
            f"runs_dir={runs_dir}: no figure of the paper shows its {len(results)} runs; "
            "`sadi-bench experiment=figure2` makes a figure's, chosen by the paper's metric."
        )
    from sadi_bench.results.paper.figure_files import put_figures  # it imports matplotlib

    return put_figures(drawn, to or runs_dir / FOLDER)


def _drawings() -> dict[str, Callable]:
    """Name every figure's file and what draws it; None is drawn where there are no runs for it."""
    try:
        from sadi_bench.results.paper import drawn_curves, drawn_elements
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "matplotlib":
            raise
        raise SettingError(
            "figures: matplotlib is not installed; pip install 'sadi-bench[bench]'."
        ) from error
    return {
        "figure2": drawn_curves.strengths,
        "figure3": drawn_elements.layers_of_one_task,
        "figure4": drawn_curves.pairs,
        "figure5": drawn_elements.overlap,
        "figures6-7": drawn_elements.layers_of_all_tasks,
    }
