"""Read one run's facts off `result["sadi_bench"]`, for tables and notes."""

from collections.abc import Mapping

from sadi_bench.results.formatting import parameters
from sadi_bench.results.paper import PaperValue, paper_value

SHOWN_METRICS = ("acc", "paper_match", "auc", "auc_pooled", "acc_biased")
ROWS = {
    "unsteered": "unsteered",
    "heldout": "held-out cell",
    "heldout_abstain": "may abstain",
    "crossfit": "cross-fitted",
    "oracle": "oracle cell",
}


def shown_metrics(ours: Mapping[str, object]) -> list[str]:
    """Name the metrics that a table shows: the headline ones, and the one that chose the cell."""
    protocols = ours["protocols"]
    known = protocols["unsteered"]["metrics"]
    shown = [metric for metric in SHOWN_METRICS if metric in known] or list(known)
    shown = [metric for metric in shown if known[metric]["value"] is not None] or shown
    return list(dict.fromkeys([*shown, protocols["metric"]]))


def metric_of(ours: Mapping[str, object], key: str, metric: str) -> Mapping[str, object]:
    """Return what a row of the report says of a metric; empty where it says nothing."""
    row = ours["protocols"].get(key) or {}
    return row.get("metrics", {}).get(metric, {})


def parameters_of(ours: Mapping[str, object], key: str) -> str:
    """Write a row's hyper-parameters in short, or how many cells it is made of."""
    row = ours["protocols"][key]
    if "draws" in row:
        return f"{row['draws']['n']} draws"
    if row["cell"] is None:
        return " | ".join(
            ", ".join(map(str, choice["params"].values())) for choice in row["selection"]["choices"]
        )
    return ", ".join(map(str, row["params"].values())) or ("none" if key != "unsteered" else "")


def choice_words(row: Mapping[str, object]) -> str:
    """Write the hyper-parameters of the cells that a row is made of, as one would type them."""
    if row["cell"] is not None:
        return parameters(row["params"]) or "the unsteered cell"
    found = [parameters(c["params"]) or "the unsteered cell" for c in row["selection"]["choices"]]
    return " and ".join(dict.fromkeys(found))


def paper_of(ours: Mapping[str, object], key: str, metric: str) -> PaperValue | None:
    """Find what the paper prints for a row; it chose on the test set, so only two rows have it.

    None where nobody has compared the run's settings with the paper's (no `paper`).
    """
    names = ours.get("paper", {})
    method = names.get({"unsteered": "unsteered", "oracle": "method"}.get(key))
    if method is None or names["task"] is None:
        return None
    english_pairs = bool(ours.get("english_pairs", False))
    return paper_value(names["task"], ours["model"], method, metric, ours["fewshot"], english_pairs)
