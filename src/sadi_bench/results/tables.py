"""Print a result: the table of a run, and one line a run for a collection of them.

Reads from `result["sadi_bench"]`: task, model, method, fewshot, chance (a fraction or None),
protocols, answers and diagnosis (see `report.report`), for XCOPA english_pairs, `finetune` (its
kind) where the model was fine-tuned, and `paper`: what `paper.matching.paper_names` says of the
run's config. Without `paper` no number of the paper is shown.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from sadi_bench.results.also_table import also_table
from sadi_bench.results.formatting import (
    MAX_WIDTH,
    MISSING,
    aligned,
    markdown,
    metric_name,
    p_value,
    percent,
    percent_interval,
    score,
    score_interval,
    side_by_side,
    unit,
)
from sadi_bench.results.groups import group_table
from sadi_bench.results.notes import notes, wrapped
from sadi_bench.results.run_facts import (
    ROWS,
    metric_of,
    paper_of,
    parameters_of,
    shown_metrics,
)
from sadi_bench.results.text_tables import judged_table, texts_table

FEW_GROUPS = 15
FEW_ANSWERS, LONGEST_ANSWER = 6, 14
LISTED_METRICS = ("acc", "paper_match")


def run_table(result: Mapping[str, object], run_dir: object) -> str:
    """Return the table of one run as text, at most 100 columns wide."""
    ours = result["sadi_bench"]
    rows = {key: label for key, label in ROWS.items() if ours["protocols"].get(key)}
    lines = [*wrapped(_title(ours)), "", *_body(ours, rows), ""]
    if answers := _answers_table(ours, rows):
        lines += [*answers, ""]
    if "texts" in ours:
        lines += [*texts_table(ours["texts"], _those(rows, ours["texts"])), ""]
    for kind, judged in ours.get("judged", {}).items():
        lines += [*judged_table(kind, judged, _those(rows, judged["rows"])), ""]
    if "also" in ours:
        lines += [*also_table(ours["also"], rows), ""]
    lines += [*_group_tables(ours), *notes(ours, rows)]
    # A path is never broken, however long: it is there to be copied.
    return "\n".join([*lines, f"run directory: {run_dir}"]) + "\n"


def _those(rows: Mapping[str, str], measured: Mapping) -> dict[str, str]:
    return {key: label for key, label in rows.items() if key in measured}


def markdown_table(results: Sequence[Mapping[str, object]]) -> str:
    """Return one row a result, sorted by task, model, method and shots, as Markdown.

    Intervals and p-values are the held-out cell's. `paper` is the paper's exact match, which was
    chosen on its test set, and therefore stands beside the oracle's `paper_match`.
    """
    header = ["task", "model", "method", "shots", "n", "cells"]
    for metric in LISTED_METRICS:
        header += [f"{metric} %, unsteered", f"{metric} %, held-out", "p"]
    header += ["auc, unsteered", "auc, held-out", "acc_biased %, unsteered"]
    header += ["paper_match %, oracle", "paper"]
    found = sorted((result["sadi_bench"] for result in results), key=_sort_key)
    return markdown([header, *map(_markdown_row, found)], n_text_columns=3)


def _sort_key(ours: Mapping[str, object]) -> tuple[str, str, str, int]:
    return ours["task"], ours["model"], method_name(ours), ours["fewshot"]


def method_name(ours: Mapping[str, object]) -> str:
    """Name a run's method, and how its model was fine-tuned, if it was."""
    return ", ".join([ours["method"], *([ours["finetune"]["kind"]] if "finetune" in ours else [])])


def _markdown_row(ours: Mapping[str, object]) -> list[str]:
    row = [*map(str, _sort_key(ours)), str(ours["protocols"]["unsteered"]["n"])]
    row += [str(ours["counts"]["cells"] - 1)]
    for metric in LISTED_METRICS:
        unsteered, heldout = (metric_of(ours, key, metric) for key in ("unsteered", "heldout"))
        interval = f" {percent_interval(heldout['ci95'])}" if heldout.get("ci95") else ""
        interval += _spread(ours, metric)
        row += [percent(unsteered.get("value")), percent(heldout.get("value")) + interval]
        row += [p_value(heldout.get("p_value"))]
    row += [score("auc", metric_of(ours, k, "auc").get("value")) for k in ("unsteered", "heldout")]
    row += [percent(metric_of(ours, "unsteered", "acc_biased").get("value"))]
    steered = ours["protocols"].get("oracle") is not None
    paper = paper_of(ours, "oracle" if steered else "unsteered", "paper_match")
    row += [percent(metric_of(ours, "oracle", "paper_match").get("value"))]
    return [*row, f"{paper.value:.2f}" if paper else MISSING]


def _spread(ours: Mapping[str, object], metric: str) -> str:
    """Say how far random draws are apart, where the row is their mean."""
    draws = (ours["protocols"].get("heldout") or {}).get("draws")
    if not draws or metric not in draws["sd"]:
        return ""
    return f", {draws['n']} draws, sd {percent(draws['sd'][metric])}"


def _title(ours: Mapping[str, object]) -> str:
    chance = "" if ours.get("chance") is None else f"; chance {percent(ours['chance'])} %"
    return (
        f"{ours['task']}, {ours['model']}, {method_name(ours)}, {ours['fewshot']}-shot: "
        f"n = {ours['protocols']['unsteered']['n']} test documents{chance}"
    )


def _body(ours: Mapping[str, object], rows: Mapping[str, str]) -> list[str]:
    """Put as many metrics side by side as fit, the others below."""
    names = ", ".join((ours["protocols"].get("oracle") or {}).get("params", {}))
    stub = [["", names], *([label, parameters_of(ours, key)] for key, label in rows.items())]
    if not any(line[1] for line in stub):
        stub = [row[:1] for row in stub]
    lines = ["", *aligned(stub)]
    tables, wide = [], lines
    for metric in shown_metrics(ours):
        block = _metric_block(ours, metric, rows)
        wider = side_by_side(wide, block)
        if max(map(len, wider)) > MAX_WIDTH and wide is not lines:
            tables.append(wide)
            wider = side_by_side(lines, block)
        wide = wider
    return sum(([*table, ""] for table in tables), []) + wide


def _answers_table(ours: Mapping[str, object], rows: Mapping[str, str]) -> list[str]:
    """Show which answers each row gives, and how many of them steering changed."""
    answers = ours.get("answers")
    if not answers:
        return []
    names = answers.get("names", [])
    names = names if len(names) <= FEW_ANSWERS else []
    header = ["answers, % of documents", *(name[:LONGEST_ANSWER] for name in names)]
    table = [[*header, "changed", "gained", "lost"]]
    if names:
        table.append(["right", *map(percent, answers["gold"]), "", "", ""])
    for key, label in rows.items():
        shares = answers["shares"].get(key, [None] * len(names)) if names else []
        row = [label, *map(percent, shares)]
        if key == "unsteered":
            table.append([*row, "", "", ""])
            continue
        found = metric_of(ours, key, "acc")
        counts = [found.get("gained"), found.get("lost")]
        row += [percent(answers["changed"].get(key))]
        table.append([*row, *(MISSING if n is None else str(n) for n in counts)])
    return [line.rstrip() for line in aligned(table)] if names or len(table) > 2 else []


def _group_tables(ours: Mapping[str, object]) -> list[str]:
    """Print averages by group where the groups are few; result.json has them all."""
    lines = []
    for column, metrics in ours.get("groups", {}).items():
        metric, groups = next(iter(metrics.items()))
        if len(groups) <= FEW_GROUPS:
            means = pd.DataFrame.from_dict(groups, orient="index").rename_axis(column)
            lines += [*group_table(means, metric).splitlines(), ""]
    return lines


def _metric_block(ours: Mapping[str, object], metric: str, rows: Mapping[str, str]) -> list[str]:
    papers = {key: paper_of(ours, key, metric) for key in rows}
    block, tested = [["value", "95 % interval", "p", "paper"]], False
    for key in rows:
        found = metric_of(ours, key, metric)
        p = found.get("p_value_adjusted") if key == "oracle" else found.get("p_value")
        tested |= p is not None
        block.append(
            [
                score(metric, found.get("value")),
                score_interval(metric, found.get("ci95")),
                "" if key == "unsteered" else p_value(p),
                f"{papers[key].value:.2f}" if papers[key] else "",
            ]
        )
    keep = [True, True, tested, any(papers.values())]
    block = [[cell for cell, kept in zip(row, keep, strict=True) if kept] for row in block]
    less = ours["protocols"].get("lower_is_better") and metric == ours["protocols"]["metric"]
    title = f"{metric_name(metric)}{unit(metric)}" + (", less is better" if less else "")
    return [title, *aligned(block, n_text_columns=0)]
