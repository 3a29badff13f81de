"""Put measured runs into the rows of the paper's tables; a run that is missing is shown as such."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

import pandas as pd

from sadi_bench.results.paper import ENGLISH_PAIRS_TABLE, METHODS, paper_tables
from sadi_bench.results.text import MISSING, markdown, percent, percent_interval

SIGNIFICANT = 0.05
COLUMNS = [
    "task", "method", "shots", "n", "heldout", "ci95_low", "ci95_high", "gain", "p_value", "oracle",
    "acc", "acc_unsteered", "paper", "paper_gain", "runs", "command",
]  # fmt: skip
NOT_MEASURED = {"average", "xcopa_average"}
METRICS = {"exact_match"}


def reproduced(
    table: int, model: str, results: Mapping[str, Mapping[str, object]], options: str = ""
) -> pd.DataFrame:
    """Return one row for each task × method that a table of the paper has, for one model.

    `results` are the `sadi_bench` parts of result.json by run; those count that chose their cell
    by exact match, the paper's metric. Columns as in `COLUMNS`: fractions, the paper's too; `gain`
    is against the same run's unsteered model, `paper_gain` against the paper's baseline. Of a row's
    runs those on the most documents are taken; several (seeds) are averaged, with their spread as
    interval. `command` is what makes a missing row, with `options` behind it.
    """
    paper = paper_tables()
    paper = paper[(paper["table"] == table) & paper["metric"].isin(METRICS)]
    paper = paper[~paper["task"].isin(NOT_MEASURED)]
    names = {theirs: ours for ours, theirs in METHODS.items()}
    tasks = list(dict.fromkeys(paper["task"]))
    lines = paper.drop_duplicates(["task", "method", "shots"])
    lines = lines.sort_values("task", key=lambda column: column.map(tasks.index), kind="stable")
    rows = []
    for line in lines.itertuples():
        method = names.get(line.method, line.method)
        same = paper[(paper["task"] == line.task) & (paper["shots"] == line.shots)]
        same = same[same["model"] == line.model].set_index("method")["value"] / 100
        place = (line.task, method, line.shots, table == ENGLISH_PAIRS_TABLE, model)
        found = {run: result for run, result in results.items() if _place(result) == place}
        sizes = [_sizes(result) for result in found.values()]
        found = {run: result for run, result in found.items() if _sizes(result) == max(sizes)}
        row = {"task": line.task, "method": line.method, "shots": line.shots}
        row |= {"paper": same[line.method], "paper_gain": None}
        if "baseline" in same and line.method != "baseline":
            row["paper_gain"] = same[line.method] - same["baseline"]
        row |= _measured(list(found.values())) if found else {}
        row |= {"runs": " ".join(found), "command": ""}
        if not found:
            row["command"] = _command(line.task, method, line.shots, model, table, options)
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS, dtype=object)


def reproduction_markdown(frame: pd.DataFrame) -> str:
    """Write the rows as Markdown, percentages; `*` marks a gain with p < 0.05."""
    header = ["task", "method", "n", "exact match, held-out", "Δ", "oracle", "acc (unsteered)"]
    header += ["paper", "paper's Δ"]
    body = []
    for row in frame.replace({float("nan"): None}).to_dict("records"):
        task = row["task"] + (f", {row['shots']}-shot" if row["shots"] else "")
        paper = [percent(row["paper"]), _points(row["paper_gain"])]
        if row["command"]:
            body.append([task, row["method"], "missing", *[MISSING] * 4, *paper])
            continue
        mark = "*" if row["p_value"] is not None and row["p_value"] < SIGNIFICANT else ""
        interval = percent_interval((row["ci95_low"], row["ci95_high"]))
        body.append(
            [
                *(task, row["method"], f"{row['n']:.0f}", f"{percent(row['heldout'])} {interval}"),
                *(_points(row["gain"]) + mark, percent(row["oracle"])),
                *(f"{percent(row['acc'])} ({percent(row['acc_unsteered'])})", *paper),
            ]
        )
    lines = [markdown([header, *body], n_text_columns=2)]
    missing = [command for command in frame["command"] if command]
    if missing:
        more = f", and so on: {len(missing)} commands, all in the CSV" if len(missing) > 1 else ""
        lines += [f"Missing rows are made by `{missing[0]}`{more}.", ""]
    return "\n".join(lines)


def _place(result: Mapping[str, object]) -> tuple | None:
    """Say which row a run belongs to; None if it chose by another metric than the paper's."""
    if result["protocols"]["metric"] not in METRICS:
        return None
    names, english = result["paper"], bool(result.get("english_pairs"))
    return names["task"], names["method"], result["fewshot"], english, result["model"]


def _sizes(result: Mapping[str, object]) -> tuple[int, ...]:
    return tuple(result["counts"].get(split, 0) for split in ("test", "select", "pairs"))


def _measured(results: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Read a row off its run, or average several; the unsteered model is its own held-out row."""
    rows = [_one(result) for result in results]
    if len(rows) == 1:
        return rows[0]
    keys = ("n", "heldout", "gain", "oracle", "acc", "acc_unsteered")
    known = {key: [row[key] for row in rows if row[key] is not None] for key in keys}
    row = {key: mean(values) if values else None for key, values in known.items()}
    spread = stdev(known["heldout"])
    low, high = row["heldout"] - spread, row["heldout"] + spread
    return row | {"ci95_low": low, "ci95_high": high, "p_value": None}


def _one(result: Mapping[str, object]) -> dict[str, object]:
    protocols = result["protocols"]
    unsteered, oracle = protocols["unsteered"], protocols.get("oracle")
    chosen = protocols.get("heldout") or (unsteered if oracle is None else None)
    found = (chosen or {"metrics": {}})["metrics"].get("exact_match", {})
    low, high = found.get("ci95") or (None, None)
    acc = (chosen or {"metrics": {}})["metrics"].get("acc", {})
    best = None if oracle is None else oracle["metrics"].get("exact_match", {}).get("value")
    return {
        "n": unsteered["n"],
        "heldout": found.get("value"),
        "ci95_low": low,
        "ci95_high": high,
        "gain": found.get("difference"),
        "p_value": found.get("p_value"),
        "oracle": best,
        "acc": acc.get("value"),
        "acc_unsteered": unsteered["metrics"].get("acc", {}).get("value"),
    }


def _command(task: str, method: str, shots: int, model: str, table: int, options: str) -> str:
    finetune, _, steering = method.rpartition("+") if method != "sft" else ("sft", "", "none")
    parts = [f"sadi-bench task={task} model={model} method={steering}"]
    parts += [f"finetune={finetune}"] if finetune else []
    parts += [f"task.fewshot={shots}"] if shots else []
    parts += ["task.pairs_from=english"] if table == ENGLISH_PAIRS_TABLE else []
    parts += ["select_by=exact_match"]
    return " ".join([*parts, *([options] if options else [])])


def _points(difference: float | None) -> str:
    return MISSING if difference is None else f"{100 * difference:+.1f}"
