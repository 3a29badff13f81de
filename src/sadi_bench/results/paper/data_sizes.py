"""Table 9 of the paper holds no scores: how much data each task has, and the model without any."""

from collections.abc import Mapping

import pandas as pd

from sadi_bench.results.formatting import MISSING, markdown, metric_name, percent, percent_interval

SIZES = ("pairs", "select", "test")


def data_sizes(model: str, results: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    """Return one row a task × shots × language of the pairs, of a model's runs without steering.

    `results` are what `table_runs.result_at` reads, by run. Of several runs of a task the one on
    the most documents is taken.
    """
    rows = {}
    for run, result in results.items():
        names, counts = result["paper"], result["counts"]
        if names["method"] != "none" or names["task"] is None or result["model"] != model:
            continue
        report = result["protocols"]
        found = report["unsteered"]["metrics"][report["metric"]]
        low, high = found["ci95"] or (None, None)
        row = {"task": names["task"], "shots": result["fewshot"]}
        row |= {"pairs_from": "english" if result.get("english_pairs") else "task"}
        row |= {size: counts.get(size, 0) for size in SIZES}
        row |= {"paper_pairs": result["config"]["task"].get("paper_pairs")}
        row |= {"chance": result.get("chance")}
        row |= {"metric": report["metric"], "value": found["value"]}
        row |= {"ci95_low": low, "ci95_high": high, "runs": run}
        place = tuple(row[key] for key in ("task", "shots", "pairs_from"))
        larger = (row["test"], row["select"], row["pairs"], row["metric"])
        if place not in rows or larger > rows[place][0]:
            rows[place] = (larger, row)
    return pd.DataFrame([rows[place][1] for place in sorted(rows)], dtype=object)


def data_sizes_markdown(frame: pd.DataFrame) -> str:
    """Write the rows of `data_sizes` as Markdown, scores in percent."""
    header = ["task", "metric", "pairs", "paper's pairs", "select", "test", "chance", "unsteered"]
    body = []
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        task = row["task"] + (f", {row['shots']}-shot" if row["shots"] else "")
        task += ", English pairs" if row["pairs_from"] == "english" else ""
        interval = percent_interval((row["ci95_low"], row["ci95_high"]))
        paper = MISSING if row["paper_pairs"] is None else str(row["paper_pairs"])
        sizes = [str(row["pairs"]), paper, str(row["select"]), str(row["test"])]
        body.append([task, metric_name(row["metric"]), *sizes, percent(row["chance"])])
        body[-1] += [f"{percent(row['value'])} {interval}"]
    return markdown([header, *body], n_text_columns=2)
