"""Tables about the texts of a run: how they read, and what a judge says of them."""

from collections.abc import Mapping

from sadi_bench.results.formatting import MISSING, aligned, metric_name, p_value, percent
from sadi_bench.results.formatting import percent_interval as interval

MEASURES = {"tokens": "tokens", "empty": "empty %", "repetition": "repeated %",
            "perplexity": "perplexity"}  # fmt: skip
HUGE = 1e6  # written with an exponent: a perplexity may have hundreds of digits


def texts_table(texts: Mapping[str, Mapping], labels: Mapping[str, str]) -> list[str]:
    """Return lines on how the headline cells' texts read, so that babble is seen."""
    rows = [["texts on the test documents", *MEASURES.values()]]
    for key, label in labels.items():
        found = texts[key]
        shares = [percent(found[name]) for name in ("empty", "repetition")]
        rows.append([label, _number(found["tokens"]), *shares, _number(found["perplexity"])])
    return aligned(rows)


def judged_table(kind: str, judged: Mapping, labels: Mapping[str, str]) -> list[str]:
    """Return lines on what one judge decided, with 95 % intervals and exact McNemar's p."""
    names = list(judged["rows"]["unsteered"])
    header = [""]
    for name in names:
        header += [f"{metric_name(name)} %", *([] if _bare(judged, name) else ["95 %", "p"])]
    rows = [header]
    for key, label in labels.items():
        row = [label]
        for name in names:
            found = judged["rows"][key][name]
            row.append(percent(found["value"]))
            if not _bare(judged, name):
                p = "" if key == "unsteered" else p_value(found.get("p_value"))
                row += [interval(found["ci95"]), p]
        rows.append(row)
    return [f"judge={kind}", *aligned(rows)]


def _bare(judged: Mapping, name: str) -> bool:
    """A product of averages has neither interval nor test."""
    return "ci95" not in judged["rows"]["unsteered"][name]


def _number(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:.1f}" if value < HUGE else f"{value:.1e}"
