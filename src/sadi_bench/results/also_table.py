"""Lines on what steering does to other tasks."""

from collections.abc import Iterator, Mapping

from sadi_bench.results.formatting import (
    aligned,
    metric_name,
    p_value,
    score,
    score_difference,
    score_interval,
    unit,
)

SHOWN = 2
"""Metrics of a task that are shown: its own, and the AUC where it has one."""


def also_table(also: Mapping[str, Mapping], labels: Mapping[str, str]) -> list[str]:
    """Return a line a task and metric: the unsteered model, the chosen cell, what is between."""
    row = next(iter(also.values()))["row"]
    label = labels.get(row, row)
    rows = [["elsewhere", "metric", "n", "unsteered", label, "difference", "95 % interval", "p"]]
    for task, found in also.items():
        rows += [[task, *line] for line in _lines(found)]
    return aligned(rows, n_text_columns=2)


def _lines(found: Mapping) -> Iterator[list[str]]:
    metrics = [found["metric"], *(m for m in ("auc", "auc_pooled") if m in found["steered"])]
    for metric in metrics[:SHOWN]:
        before, after = found["unsteered"][metric], found["steered"][metric]
        numbers = [score(metric, each["value"]) for each in (before, after)]
        if "difference" not in after:  # the chosen cell is the unsteered model
            yield [f"{metric_name(metric)}{unit(metric)}", str(found["n"]), *numbers, "", "", ""]
            continue
        yield [
            f"{metric_name(metric)}{unit(metric)}",
            str(found["n"]),
            *numbers,
            score_difference(metric, after["difference"]),
            score_interval(metric, after["difference_ci95"]),
            p_value(after.get("p_value")),
        ]
