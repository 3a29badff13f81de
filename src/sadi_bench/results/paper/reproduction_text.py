"""Write a reproduced table for people: Markdown, what its columns mean, what is missing."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from sadi_bench.results.formatting import (
    MISSING,
    markdown,
    metric_name,
    p_value,
    percent,
    percent_interval,
)
from sadi_bench.results.paper.averages import AVERAGES
from sadi_bench.results.paper.reproduction import CHOSEN_BY, JUDGED

SIGNIFICANT = 0.05
LESS_IS_BETTER = "less is better"
MEANINGS = {
    "paper_match": "the model's own answer, cleaned as the paper's code does, is the right one: "
    "exact match in the paper",
    "exact_match": "the text is one of the right answers",
    "toxicity": f"share of texts that the judge calls toxic, {LESS_IS_BETTER}",
    "mc1": "the best answer is the likeliest, one token or many",
    "mc2": "share of probability that the true answers have",
    "mc3": "share of the true answers that are likelier than every false one",
    "true": "share of texts that the judge calls true",
    "info": "share of texts that the judge calls informative",
    "true_x_info": "product of the two averages, without a test",
}

Row = Mapping[str, object]


def reproduction_markdown(frame: pd.DataFrame) -> str:
    """Write the rows of `reproduced` as Markdown, percentages; `*` marks what survives Holm."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    columns = [(name, write) for name, write, shown in _columns(frame) if shown]
    n_text = 2 + (frame["metric"].nunique() > 1)
    body = []
    for row in rows:
        body.append([write(row) for _, write in columns])
        if not row["runs"] and row["n_tasks"] is None:
            body[-1][n_text:-2] = ["missing", *[MISSING] * (len(columns) - n_text - 3)]
    return markdown([[name for name, _ in columns], *body], n_text_columns=n_text)


def _columns(frame: pd.DataFrame) -> list[tuple[str, Callable[[Row], str], bool]]:
    """Return header, cell and whether it is shown: words first, the paper's two numbers last."""
    metrics = list(dict.fromkeys(frame["metric"]))
    several = frame.groupby("task")["shots"].transform("any")
    with_shots = set(frame["task"][several])
    held_out = "held-out" if len(metrics) > 1 else f"{_name(metrics[0])}, held-out"
    known = frame.notna().any().to_dict()
    return [
        ("task", lambda row: _task(row, with_shots), True),
        ("metric", lambda row: _name(row["metric"]), len(metrics) > 1),
        ("method", lambda row: row["method"], True),
        ("cells", lambda row: _count(row["cells"]), True),
        ("n", lambda row: _count(row["n"]), True),
        (held_out, _held_out, True),
        ("Δ", lambda row: _points(row["gain"]) + _mark(row), True),
        ("p", lambda row: p_value(row["p_value"]), True),
        ("p, Holm", lambda row: p_value(row["p_holm"]), True),
        ("p, draws", lambda row: p_value(row["p_random"]), known["p_random"]),
        ("cross-fitted", lambda row: percent(row["crossfit"]), known["crossfit"]),
        ("oracle", lambda row: percent(row["oracle"]), True),
        ("auc (unsteered)", lambda row: _pair(row, "auc", "{:.3f}".format), known["auc_unsteered"]),
        ("acc (unsteered)", lambda row: _pair(row, "acc", percent), known["acc_unsteered"]),
        ("paper", lambda row: f"{100 * row['paper']:.2f}", True),
        ("paper's Δ", lambda row: _points(row["paper_gain"]), True),
    ]


def remarks(frame: pd.DataFrame, make: str) -> list[str]:
    """Return the paragraphs that stand below a table: judges, the paper's oddities, what misses.

    `make` is the command that runs the whole table.
    """
    notes = [f"{note}." for note in frame["judge_note"].dropna().unique()]
    odd = frame[frame["paper_note"] != ""]
    for note, rows in odd.groupby("paper_note", sort=False):
        which = [
            f"{row.task} {row.method} {metric_name(row.metric)} {100 * row.paper:.2f}"
            for row in rows.itertuples()
        ]
        named = "" if len(rows) == len(frame) else f" ({'; '.join(which)})"
        notes.append(f"The paper's numbers{named}: {note}.")
    notes += _left_out(frame)
    commands = list(dict.fromkeys(command for command in frame["command"] if command))
    if commands:
        notes.append(f"Missing runs: {len(commands)}. `{make}` makes them all; one by one:")
        notes.append("\n".join(["```sh", *commands, "```"]))
    return notes


def explained(frame: pd.DataFrame) -> str:
    """Say what the columns of `reproduction_markdown` hold, as a Markdown list."""
    metrics = list(dict.fromkeys(frame["metric"]))
    choosers = [metric_name(name) for name in dict.fromkeys(CHOSEN_BY[m] for m in metrics)]
    tests = [name.replace("_", " ") for name in frame["test"].dropna().unique()]
    lines = [f"{metric_name(metric)}: {MEANINGS[metric]}" for metric in metrics]
    lines += [
        "cells: steered cells that the run scored and chose from",
        "held-out: the cell that is best on documents which are not tested on, by "
        f"{_listed(choosers)}, with its 95 % interval; of a row with several runs (seeds) or "
        "random draws, the mean of N ± standard deviation; only runs that differ in nothing but "
        "the seed are averaged",
        "oracle: the cell that is best on the test documents themselves, as the paper chose",
        "Δ: points against the unsteered model of the same run (of sft: the baseline's row)",
        f"p: of Δ ({_listed(tests or ['no test'])})",
        "p, Holm: corrected for the rows of this table; `*` marks what is below "
        f"{SIGNIFICANT} after that",
    ]
    lines += [text for column, text in _IF_KNOWN.items() if frame[column].notna().any()]
    if set(metrics) & set(JUDGED):
        lines.append("TruthfulQA's texts are judged in the cell that MC1 chose")
    if "toxicity" in metrics:
        lines.append("Δ of toxicity is measured less unsteered as well: a gain is below 0")
    if frame["task"].isin(AVERAGES).any():
        lines.append("average: the mean over as many tasks as the paper has of the method")
    return "In percent:\n\n" + "\n".join(f"- {line}" for line in lines)


_IF_KNOWN = {
    "p_random": "p, draws: (1 + random draws at least as good) / (1 + draws), on the same grid",
    "crossfit": "cross-fitted: chosen on half of the documents, scored on the other half, in turn",
    "auc_unsteered": "auc: how well an answer's log-probability tells where it is right, whatever "
    "constant is added to it; 0.500 is chance",
    "acc_unsteered": "acc: the likeliest of the answers alone is the right one",
}


def _left_out(frame: pd.DataFrame) -> list[str]:
    """Name the runs that a row could have had, were they not of another setting."""
    rows = frame[frame["left_out"] != ""].drop_duplicates(["task", "method", "shots"])
    if rows.empty:
        return []
    named = [f"{row.task} {row.method}: {row.left_out}" for row in rows.itertuples()]
    return [f"Runs of other settings or sizes, left out: {'; '.join(named)}."]


def _task(row: Row, with_shots: set[str]) -> str:
    return row["task"] + (f", {row['shots']}-shot" if row["task"] in with_shots else "")


def _held_out(row: Row) -> str:
    value = percent(row["heldout"])
    if row["n_tasks"] is not None:
        return f"{value} ({row['n_tasks']} tasks)"
    if row["ci95_low"] is None:
        return value
    several = f"{row['draws']} draws" if row["draws"] is not None else f"{row['n_runs']} runs"
    if row["draws"] is not None or row["n_runs"] > 1:
        return f"{value} ± {percent(row['ci95_high'] - row['heldout'])} ({several})"
    return f"{value} {percent_interval((row['ci95_low'], row['ci95_high']))}"


def _mark(row: Row) -> str:
    return "*" if row["p_holm"] is not None and row["p_holm"] < SIGNIFICANT else ""


def _pair(row: Row, metric: str, write: Callable[[float], str]) -> str:
    """Write the held-out cell's value and, in brackets, the unsteered model's."""
    values = (row[metric], row[f"{metric}_unsteered"])
    held_out, before = (MISSING if value is None else write(value) for value in values)
    return MISSING if values[1] is None else f"{held_out} ({before})"


def _count(number: float | None) -> str:
    return MISSING if number is None else f"{number:.0f}"


def _name(metric: str) -> str:
    return metric_name(metric) + (f" ({LESS_IS_BETTER})" if metric == "toxicity" else "")


def _points(difference: float | None) -> str:
    return MISSING if difference is None else f"{100 * difference:+.1f}"


def _listed(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
