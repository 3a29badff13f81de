"""Put measured runs into the rows of the paper's tables; a run that is missing is shown as such."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

import pandas as pd

from sadi_bench.results.paper import (
    ENGLISH_PAIRS_TABLE,
    METHODS,
    MODELS,
    UNREACHABLE,
    our_metric,
    paper_tables,
    paper_value,
)
from sadi_bench.results.paper.averages import AVERAGES, with_averages
from sadi_bench.results.paper.domains import DOMAINS
from sadi_bench.results.paper.draws import draws_of, with_p_of_draws
from sadi_bench.results.paper.table_runs import Place, Result, place_of, runs_of
from sadi_bench.results.statistics import holm

COLUMNS = [
    "task", "method", "shots", "metric", "n_tasks", "n", "n_runs", "draws", "cells", "heldout",
    "ci95_low", "ci95_high", "gain", "p_value", "p_holm", "test", "p_random", "crossfit", "oracle",
    "auc", "auc_unsteered", "acc", "acc_unsteered", "paper", "paper_gain", "paper_note",
    "judge_note", "runs", "left_out", "command",
]  # fmt: skip
MEASURED = ("n", "heldout", "gain", "crossfit", "oracle", "auc", "auc_unsteered", "acc",
            "acc_unsteered")  # fmt: skip
JUDGES = ("truthfulqa", "truthfulqa-offline")  # the paper's first
JUDGED = ("true", "info", "true_x_info")
CHOSEN_BY = {name: name for name in ("paper_match", "exact_match", "toxicity")}
CHOSEN_BY |= dict.fromkeys(("mc1", "mc2", "mc3", *JUDGED), "mc1")
"""What is measured for a metric of the paper → the metric that must have chosen the cell."""

Scores = Mapping[str, Mapping[str, Mapping[str, object]]]


def reproduced(
    table: int, model: str, results: Mapping[str, Result], options: str = ""
) -> pd.DataFrame:
    """Return one row for each task × metric × shots × method that a table of the paper has.

    `results` are the `sadi_bench` parts of result.json by run, with `config`, the run's resolved
    config, and with `domains` (`domain_scores`) for MMLU's; those count that chose their cell as
    `CHOSEN_BY` says. Columns as in `COLUMNS`: fractions, the paper's too; `gain` is against the
    same run's unsteered model (of `sft`: the baseline's row), `paper_gain` against what the paper
    prints for that. Runs that differ in the seed alone are averaged, with their spread as interval;
    so are a run's random draws. `left_out` are a row's other runs. `command` is what makes a
    missing row, with `options` behind it.
    """
    lines = _lines(table, paper_model(table, model))
    methods = [_method(line) for line in lines]
    papers = {(line.task, line.metric, line.shots, line.method): line.value for line in lines}
    judged = {line.task for line in lines if line.metric in JUDGED}
    rows = []
    for line in lines:
        place = _place(table, model, line)
        scores = _candidates(place, line, results)
        notes = {run: note for run, (_, note) in scores.items()}
        found = runs_of(place, notes, methods, results)
        row = dict.fromkeys(COLUMNS) | {"task": line.task, "method": line.method}
        row |= {"shots": line.shots, "metric": line.metric}
        row |= {"paper": line.value / 100, "paper_gain": _paper_gain(line, papers)}
        row |= {"paper_note": _paper_note(line)}
        row |= _measured([results[run] for run in found], line) if found else {}
        row |= {"runs": " ".join(found), "left_out": " ".join(sorted({*scores} - {*found}))}
        typed = " ".join(filter(None, ["judge=auto" if line.task in judged else "", options]))
        rows.append(row | {"command": "" if found else _command(place, typed)})
    frame = pd.DataFrame(rows, columns=COLUMNS, dtype=object)
    frame = with_p_of_draws(_with_gains_of_training(frame), results)
    frame["p_holm"] = holm(_or_none(frame["p_value"]))
    return with_averages(table, frame)


def paper_model(table: int, model: str) -> str:
    """Name the paper's model whose numbers stand beside ours: the same one if the table has it."""
    rows = paper_tables()
    models = list(dict.fromkeys(rows[rows["table"] == table]["model"]))
    wanted = MODELS.get(model, model)
    return wanted if wanted in models else models[0]


def _lines(table: int, model: str) -> list:
    """Return the paper's rows by our metrics; tasks and metrics in its order, methods in turn."""
    paper = paper_tables()
    paper = paper.assign(metric=list(map(our_metric, paper["task"], paper["metric"])))
    paper = paper[(paper["table"] == table) & (paper["model"] == model)]
    paper = paper[paper["metric"].isin(CHOSEN_BY) & ~paper["task"].isin(AVERAGES)]
    tasks, metrics = (list(dict.fromkeys(paper[key])) for key in ("task", "metric"))
    return sorted(
        paper.itertuples(index=False),
        key=lambda line: (tasks.index(line.task), metrics.index(line.metric), line.shots),
    )


def _method(line: object) -> str:
    return {theirs: ours for ours, theirs in METHODS.items()}.get(line.method, line.method)


def _place(table: int, model: str, line: object) -> Place:
    task = "mmlu" if line.task in DOMAINS else line.task
    english, chosen_by = table == ENGLISH_PAIRS_TABLE, CHOSEN_BY[line.metric]
    return Place(task, line.shots, english, model, chosen_by, _method(line))


def _candidates(
    place: Place, line: object, results: Mapping[str, Result]
) -> dict[str, tuple[Scores, str | None]]:
    """Return what the runs at a place measured, and their judge's note."""
    scores = {run: _scores(each, line) for run, each in results.items() if place_of(each) == place}
    return {run: found for run, found in scores.items() if found is not None}


def _scores(result: Result, line: object) -> tuple[Scores, str | None] | None:
    """Return row → metric → what was measured, and the judge's note; None where it was not."""
    if line.metric in JUDGED:
        judged = [result["judged"][kind] for kind in JUDGES if kind in result.get("judged", {})]
        return (judged[0]["rows"], judged[0]["note"]) if judged else None
    if line.task in DOMAINS:
        rows = result.get("domains", {}).get(DOMAINS[line.task])
        return None if rows is None else (rows, None)
    report = result["protocols"]
    rows = {row: report[row]["metrics"] for row in ("unsteered", "heldout", "crossfit", "oracle")
            if report.get(row)}  # fmt: skip
    note = result.get("judge_note") if line.metric == "toxicity" else None
    return (rows, note) if line.metric in rows["unsteered"] else None


def _measured(results: Sequence[Result], line: object) -> dict[str, object]:
    """Read a row off its run, or average several; the unsteered model is its own held-out row."""
    scores = [_scores(result, line) for result in results]
    rows = [_one(found, line.metric) for found, _ in scores]
    row = {"n_runs": len(rows), "cells": results[0]["counts"]["cells"] - 1}
    row |= {"judge_note": scores[0][1]}
    if len(rows) == 1:
        return rows[0] | row | _over_draws(results[0], line)
    known = {key: [one[key] for one in rows if one[key] is not None] for key in MEASURED}
    row |= {key: mean(values) if values else None for key, values in known.items()}
    return row | _spread(known["heldout"])


def _one(rows: Scores, metric: str) -> dict[str, object]:
    unsteered, oracle = rows["unsteered"], rows.get("oracle")
    chosen = rows.get("heldout", unsteered if oracle is None else {})
    found = chosen.get(metric, {})
    low, high = found.get("ci95") or (None, None)
    gain, value, before = found.get("difference"), found.get("value"), unsteered[metric]["value"]
    if gain is None and chosen is not unsteered and None not in (value, before):
        gain = value - before  # a product of averages has no test, and no difference of its own
    return {
        "n": unsteered[metric]["n"],
        "heldout": value,
        "ci95_low": low,
        "ci95_high": high,
        "gain": gain,
        "p_value": found.get("p_value"),
        "test": found.get("test"),
        "crossfit": _value(rows.get("crossfit"), metric),
        "oracle": _value(oracle, metric),
        "auc": _value(chosen, "auc", "auc_pooled"),
        "auc_unsteered": _value(unsteered, "auc", "auc_pooled"),
        "acc": _value(chosen, "acc"),
        "acc_unsteered": _value(unsteered, "acc"),
    }


def _value(metrics: Mapping[str, Mapping] | None, *names: str) -> float | None:
    """Return the first of several metrics that a row has."""
    return next((metrics[name]["value"] for name in names if name in (metrics or {})), None)


def _over_draws(result: Result, line: object) -> dict[str, object]:
    """Return mean and spread over a run's random draws; nothing where it has none."""
    draws = [] if line.task in DOMAINS else draws_of(result, line.metric)
    if not draws:
        return {}
    before = result["protocols"]["unsteered"]["metrics"][line.metric]["value"]
    found = {"draws": len(draws), "heldout": mean(draws), "gain": mean(draws) - before}
    return found | {"p_value": None, "test": None} | _spread(draws)


def _spread(values: Sequence[float]) -> dict[str, float]:
    if len(values) < 2:
        return {}
    return {
        "ci95_low": mean(values) - stdev(values),
        "ci95_high": mean(values) + stdev(values),
    }


def _with_gains_of_training(frame: pd.DataFrame) -> pd.DataFrame:
    """Fill in what fine-tuning alone gained over the baseline's row on as many documents."""
    keys = ["task", "shots", "metric", "n"]
    baseline = frame[frame["method"] == "baseline"].set_index(keys)["heldout"].to_dict()
    for index, row in frame[(frame["method"] == "sft") & (frame["runs"] != "")].iterrows():
        before = baseline.get(tuple(row[keys]))
        if before is not None and row["heldout"] is not None:
            frame.at[index, "gain"] = row["heldout"] - before
    return frame


def _paper_gain(line: object, papers: Mapping[tuple, float]) -> float | None:
    """Return what a method gains in the paper; its Table 4 leaves the baseline to other tables."""
    before = "sft" if line.method.startswith("sft+") else "baseline"
    if line.method == before:
        return None
    value = papers.get((line.task, line.metric, line.shots, before))
    if value is None:
        other = paper_value(line.task, line.model, before, line.metric, line.shots)
        value = other.value if other else None
    return None if value is None else (line.value - value) / 100


def _paper_note(line: object) -> str:
    return line.note or UNREACHABLE.get((line.method, line.task, line.value), "")


def _command(place: Place, options: str) -> str:
    finetune, _, steering = place.method.rpartition("+")
    if place.method == "sft":
        finetune, steering = "sft", "none"
    parts = [f"sadi-bench task={place.task} model={place.model} method={steering}"]
    parts += [f"finetune={finetune}"] if finetune else []
    parts += [f"task.fewshot={place.shots}"] if place.shots else []
    parts += ["task.pairs_from=english"] if place.english_pairs else []
    return " ".join([*parts, "select_by=paper", *([options] if options else [])])


def _or_none(values: pd.Series) -> list[float | None]:
    return [None if pd.isna(value) else value for value in values]
