"""List the finished runs of a folder, one line a run."""

import os
from datetime import datetime, timezone
from pathlib import Path

from sadi_bench.errors import SettingError
from sadi_bench.results.formatting import aligned, fitted, metric_name, score
from sadi_bench.results.paper.table_runs import finished_runs
from sadi_bench.results.reading import load_result
from sadi_bench.results.run_facts import metric_of
from sadi_bench.results.tables import method_name

HEADER = ("run", "task", "model", "method", "protocol", "unsteered → held-out", "date")
SHORTENED = (1, 2, 3)  # task, model and method give way where a line is too long


def listed_runs(runs_dir: str | os.PathLike) -> str:
    """Return a table of the finished runs, the newest last, at most 100 columns wide.

    Scores are of the metric that chose the cell; a run without a held-out cell has one alone. Dates
    are UTC. A run that cannot be read is named below the table.

    Raises:
        SettingError: there is no finished run.
    """
    found, broken = [], []
    for path in finished_runs(Path(runs_dir)):
        try:
            found.append(_run(path))
        except SettingError as error:
            broken.append(str(error))
    rows = [list(HEADER), *(row for _, row in sorted(found))]
    return "\n".join([*aligned(fitted(rows, SHORTENED), len(HEADER)), *broken]) + "\n"


def _run(path: Path) -> tuple[float, list[str]]:
    """Return when a run was made, and its line."""
    result = load_result(path)
    ours, made = result["sadi_bench"], float(result["date"])
    metric = ours["protocols"]["metric"]
    values = [metric_of(ours, row, metric).get("value") for row in ("unsteered", "heldout")]
    known = " → ".join(score(metric, value) for value in values if value is not None)
    row = [path.name, ours["task"], ours["model"], method_name(ours), ours["protocol"]]
    row += [
        f"{metric_name(metric)} {known}",
        f"{datetime.fromtimestamp(made, timezone.utc):%Y-%m-%d}",
    ]
    return made, row
