"""The average rows of the paper's Tables 1 and 8: means over a method's tasks."""

import pandas as pd

from sadi_bench.results.paper import paper_tables

AVERAGES = ("average", "xcopa_average")
"""What the paper calls the mean over a table's tasks: of as many as it has of a method."""
AVERAGED = ("heldout", "gain", "crossfit", "oracle", "auc", "auc_unsteered", "acc", "acc_unsteered")
PRINTED = 0.005 + 1e-9  # half of the last digit


def with_averages(table: int, frame: pd.DataFrame) -> pd.DataFrame:
    """Put a method's mean below the rows of `reproduced`, where the paper's table has one.

    It has numbers where all the method's tasks were measured; `n_tasks` says how many they are.
    """
    paper = paper_tables()
    paper = paper[(paper["table"] == table) & paper["task"].isin(AVERAGES)]
    rows = [_average(line, frame[frame["method"] == line.method]) for line in paper.itertuples()]
    if not rows:
        return frame
    rows = [*frame.to_dict("records"), *(dict.fromkeys(frame.columns) | row for row in rows)]
    return pd.DataFrame(rows, dtype=object)


def _average(line: object, tasks: pd.DataFrame) -> dict[str, object]:
    row = {"task": line.task, "method": line.method, "shots": line.shots, "runs": ""}
    row |= {"metric": "paper_match", "left_out": "", "command": "", "paper": line.value / 100}
    row |= {"paper_gain": _mean(tasks["paper_gain"])}
    row |= {"paper_note": _note(100 * tasks["paper"].astype(float), line.value)}
    if (tasks["runs"] != "").all():
        row |= {"n_tasks": len(tasks)} | {key: _mean(tasks[key]) for key in AVERAGED}
    return row


def _mean(values: pd.Series) -> float | None:
    return None if values.isna().any() else float(values.astype(float).mean())


def _note(values: pd.Series, printed: float) -> str:
    """Say where the mean of the printed numbers is not the printed mean."""
    if abs(values.mean() - printed) <= PRINTED:
        return ""
    return f"the mean of the {len(values)} tasks that it prints is {values.mean():.4f}"
