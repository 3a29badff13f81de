"""What the SADI paper (arXiv 2410.12299) reports, beside what we measure.

`tables.csv` holds Tables 1-8 and 10, `figures.csv` Figures 2 and 4: one number a row, in percent,
as printed. Numbers that contradict each other or the paper's own test sizes carry a note.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from importlib import resources

import pandas as pd

# Our configs on the left, the paper's rows on the right; names that agree are not listed.
MODELS = {"llama2-7b": "llama2-7b-chat"}
METHODS = {"none": "baseline"}
ENGLISH_PAIRS_TABLE = 10
UNREACHABLE = {
    ("sft+sadi-hidden", "copa", 94.90): "cannot be reached with 500 test documents",
    ("sadi-head", "xcopa_zh", 70.10): "cannot be reached with 500 test documents",
    ("iti", "toxigen", 45.27): "cannot be reached with 1400 test documents",
}


@dataclass(frozen=True)
class PaperValue:
    """One number of the paper: percent, the table that prints it, and what is odd about it."""

    value: float
    table: int
    note: str


def paper_tables() -> pd.DataFrame:
    """Return columns table, model, method, task, metric, shots, value (percent), note."""
    return _TABLES


def paper_figures() -> pd.DataFrame:
    """Return columns figure, model, method, task, x_name, x, top_k, value (percent), note."""
    return _FIGURES


def paper_value(
    task: str,
    model: str,
    method: str,
    metric: str = "paper_match",
    shots: int = 0,
    english_pairs: bool = False,
) -> PaperValue | None:
    """Look a number up by our names of task, model, method and metric; None where it has none.

    `english_pairs` means XCOPA with the elements identified on English pairs (Table 10); without
    it they come from the same language (Table 8). Where two tables print the same quantity, the
    first one is returned and the note says what the other prints.
    """
    rows = paper_tables()
    rows = rows[
        (rows["task"] == task)
        & (rows["model"] == MODELS.get(model, model))
        & (rows["method"] == METHODS.get(method, method))
        & (rows["metric"].map(partial(our_metric, task)) == metric)
        & (rows["shots"] == shots)
        & ((rows["table"] == ENGLISH_PAIRS_TABLE) == english_pairs)
    ].sort_values("table", kind="stable")
    if rows.empty:
        return None
    first = rows.iloc[0]
    notes = [first["note"], UNREACHABLE.get((first["method"], task, first["value"]), "")]
    # Some rows of the CSV already name the table they contradict.
    notes += [
        f"Table {row.table} prints {row.value:.2f}"
        for row in rows.iloc[1:].itertuples()
        if row.value != first["value"] and f"Table {row.table}" not in first["note"]
    ]
    return PaperValue(float(first["value"]), int(first["table"]), "; ".join(filter(None, notes)))


def our_metric(task: str, theirs: str) -> str:
    """Name what is measured here for a metric of the paper.

    Its exact match compares decoded text (`paper_match`), but of TriviaQA aliases (`exact_match`).
    """
    return "paper_match" if theirs == "exact_match" and task != "triviaqa" else theirs


def paper_metric(metrics: Iterable[str]) -> str:
    """Return the one of a task's metrics that the paper prints: `paper_match`, else the first."""
    metrics = list(metrics)
    return "paper_match" if "paper_match" in metrics else metrics[0]


def _read(name: str) -> pd.DataFrame:
    with resources.files(__name__).joinpath(name).open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False, na_values={"top_k": [""]})


_TABLES, _FIGURES = _read("tables.csv"), _read("figures.csv")
