"""Draw Figures 2 to 7 of the paper from the finished runs of a folder."""

import io
from collections.abc import Callable
from pathlib import Path

from sadi_bench.disk import write_atomically
from sadi_bench.errors import SettingError
from sadi_bench.results.paper.table_runs import finished_runs, of_model, result_at
from sadi_bench.results.run_dir import write_errors

FOLDER = "figures"
"""Where figures go beside the runs, unless another place is asked for."""


def write_figures(runs_dir: Path, to: Path | None = None, model: str | None = None) -> list[str]:
    """Draw every figure that the finished runs of a folder have numbers for; return the files.

    `to` is `runs_dir/figures` where it is not given, `model` every model that has runs.

    Raises:
        SettingError: matplotlib is not installed; there are no runs, none of the model, or none
            that a figure shows.
    """
    drawings = _drawings()
    results = {path.name: result_at(path) for path in finished_runs(runs_dir)}
    to, files = to or runs_dir / FOLDER, {}
    for name in of_model(results, model):
        theirs = {run: result for run, result in results.items() if result["model"] == name}
        for figure, draw in drawings.items():
            if drawn := draw(name, theirs, runs_dir):
                image = io.BytesIO()
                drawn.savefig(image, format="png", dpi=150)
                files[to / f"{figure}-{name.replace('/', '-')}.png"] = image.getvalue()
    if not files:
        raise SettingError(
            f"runs_dir={runs_dir}: no figure of the paper shows its {len(results)} runs; "
            "`sadi-bench experiment=figure2` makes a figure's, chosen by the paper's metric."
        )
    with write_errors(next(iter(files)), setting="to"):
        to.mkdir(parents=True, exist_ok=True)
        write_atomically(files)
    return [str(file) for file in files]


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
