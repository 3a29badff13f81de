"""What a run's table says below its numbers, in words."""

import textwrap
from collections.abc import Mapping

from sadi_bench.results.formatting import (
    MAX_WIDTH,
    MISSING,
    metric_name,
    percent,
    score,
    score_difference,
    score_interval,
    unit,
)
from sadi_bench.results.run_facts import (
    ROWS,
    choice_words,
    metric_of,
    paper_of,
    shown_metrics,
)

TESTS = {
    "mcnemar_exact": "exact McNemar",
    "sign_flip": "sign flips",
    "sign_flip_groups": "sign flips of groups of documents that belong together",
}
RELEASED_NOTE = (
    "protocol=released: the procedure of the paper's released code, in float32. The cell is chosen "
    "on the test documents by the paper's metric; steered cells skip documents of over 700 tokens."
)
KEPT_NOTE = "that the select split left in the race"


def notes(ours: Mapping[str, object], rows: Mapping[str, str]) -> list[str]:
    """Return the lines below a run's table; the last ones say what steering did."""
    steered = [key for key in rows if key != "unsteered"]
    found = [_choice_note(ours, key) for key in steered]
    if "heldout" in rows:
        found.append(_difference_note(ours))
    found += [_draws_note(ours, key) for key in steered if "draws" in ours["protocols"][key]]
    if steered:
        found.append(_test_note(ours, steered))
    if "heldout" not in rows and "oracle" in rows:
        found.append("There is no split to select on, so there is no held-out result.")
    if ours.get("protocol") == "released":
        found.append(RELEASED_NOTE)
    for key, label in rows.items():
        if count := ours["protocols"][key]["n_nonfinite"]:
            found.append(f"{label}: {count} documents gave non-finite numbers.")
    found += _measured_notes(ours, rows) + _judge_notes(ours) + _paper_notes(ours, rows)
    found += _constant_notes(ours, rows) + _diagnosis_notes(ours)
    return [line for note in found for line in wrapped(note)]


def wrapped(text: str) -> list[str]:
    """Break a text into lines that fit, later ones indented."""
    return textwrap.wrap(text, MAX_WIDTH, subsequent_indent="  ")


def _choice_note(ours: Mapping[str, object], key: str) -> str:
    row = ours["protocols"][key]
    chosen = row["selection"]
    tied = f" ({chosen['n_tied']} tied)" if chosen.get("n_tied", 1) > 1 else ""
    cells = chosen["n_candidates"]
    if key == "heldout_abstain":
        chosen_words = choice_words(row)
        if "draws" in row:
            n_abstained = sum(cell == 0 for cell in row["cells"])
            chosen_words = f"the unsteered cell in {n_abstained} of {len(row['cells'])} draws"
        return f"{ROWS[key]}: {chosen_words}; as held-out, but the unsteered cell may win."
    best = f"best {metric_name(chosen['metric'])} of {cells} cells{tied} on "
    note = "a cell for every draw; each " if "draws" in row else f"{choice_words(row)}; "
    note = f"{ROWS[key]}: {note}{best}"
    if key == "heldout":
        value = chosen.get("value")
        there = "" if value is None else _there(chosen["metric"], value)
        return note + f"{_n_chosen_on(chosen)} other documents{there}."
    if key == "crossfit":
        halves = "one half of the select and test documents, measured on the other"
        return note + halves + _beside(ours) + "."
    counts = ours.get("counts", {})
    few = "test_cells" in counts and counts["test_cells"] < counts["cells"]
    note += "the test documents themselves"
    return note + (f", of those {KEPT_NOTE}" if few else "") + ": an upper bound, not a result."


def _beside(ours: Mapping[str, object]) -> str:
    """Give the unsteered model's value on the cross-fitted row's own documents."""
    metric = ours["protocols"]["metric"]
    found = metric_of(ours, "crossfit", metric)
    if found.get("difference") is None:
        return ""
    before = score(metric, found["value"] - found["difference"])
    return f" (unsteered there: {metric_name(metric)} {before}{unit(metric)})"


def _n_chosen_on(chosen: Mapping[str, object]) -> int:
    return chosen["n"] if "n" in chosen else chosen["choices"][0]["n"]


def _there(metric: str, value: float) -> str:
    return f" ({score(metric, value)}{unit(metric)} there)"


def _difference_note(ours: Mapping[str, object]) -> str:
    """Say what steering gained on documents that it was not chosen on."""
    gains = []
    for metric in shown_metrics(ours):
        found = metric_of(ours, "heldout", metric)
        if found.get("difference") is not None:
            gain = score_difference(metric, found["difference"])
            interval = score_interval(metric, found["difference_ci95"])
            gains.append(f"{metric_name(metric)} {gain} {interval}")
    return f"held-out less unsteered: {'; '.join(gains) or MISSING}."


def _draws_note(ours: Mapping[str, object], key: str) -> str:
    draws, metric = ours["protocols"][key]["draws"], ours["protocols"]["metric"]
    values = draws["values"].get(metric)
    if not values:
        return f"{ROWS[key]}: mean of {draws['n']} random draws."
    low, high = (score(metric, end) for end in (min(values), max(values)))
    spread = score(metric, draws["sd"][metric])
    return (
        f"{ROWS[key]}: mean of {draws['n']} random draws; {metric_name(metric)} from {low} to "
        f"{high}, standard deviation {spread}."
    )


def _test_note(ours: Mapping[str, object], steered: list[str]) -> str:
    tests = {metric_of(ours, key, m).get("test") for key in steered for m in shown_metrics(ours)}
    names = " or ".join(name for test, name in TESTS.items() if test in tests)
    return (
        f"p: against unsteered on the same documents, {names or 'no test'}; the oracle's is "
        "corrected for the number of cells it was chosen from."
    )


def _measured_notes(ours: Mapping[str, object], rows: Mapping[str, str]) -> list[str]:
    """Say what a method did to the model, and whether it is one to be compared."""
    found = ["A control, not steering: it is not ranked."] if ours.get("control") else []
    measured = ours.get("measured", {})
    for name in measured.get("unsteered", {}):
        values = [
            f"{label} {percent(measured[key][name])} %"
            for key, label in rows.items()
            if key in measured
        ]
        found.append(f"{metric_name(name)}: {', '.join(values)}.")
    return found


def _judge_notes(ours: Mapping[str, object]) -> list[str]:
    """Say what the judges are, where they are not the paper's."""
    found = [judged["note"] for judged in ours.get("judged", {}).values()]
    return [f"{note}." for note in dict.fromkeys([*found, ours.get("judge_note")]) if note]


def _paper_notes(ours: Mapping[str, object], rows: Mapping[str, str]) -> list[str]:
    papers = [paper_of(ours, key, metric) for key in rows for metric in shown_metrics(ours)]
    papers = [paper for paper in papers if paper]
    if not papers:
        return []
    chosen = ", which chose its cell on the test set" if "oracle" in rows else ""
    odd = [f"paper's {p.value:.2f} (Table {p.table}): {p.note}." for p in papers if p.note]
    return [f"paper: arXiv 2410.12299{chosen}.", *odd]


def _constant_notes(ours: Mapping[str, object], rows: Mapping[str, str]) -> list[str]:
    """Warn where one answer takes nearly all documents: acc then says little of the model."""
    answers = ours.get("answers") or {}
    by_answer: dict[str, list[str]] = {}
    for key, name in answers.get("constant", {}).items():
        if key in rows:
            n, share = ours["protocols"][key]["n"], max(answers["shares"][key])
            by_answer.setdefault(name, []).append(f"{rows[key]} {round(share * n)} of {n}")
    return [
        f"Nearly all answers are {name} ({', '.join(counts)}): acc is about the share of documents "
        f"whose right answer is {name}."
        for name, counts in by_answer.items()
    ]


def _diagnosis_notes(ours: Mapping[str, object]) -> list[str]:
    """Close with the one sentence that follows from the numbers above it."""
    found = ours.get("diagnosis")
    if not found:
        return []
    below = []
    if found.get("cells_below"):
        counted = f"{found['cells_below']} of {found['cells']}"
        below = [f"auc on the test documents is below the unsteered model's in {counted} cells."]
    return [*below, found["sentence"]]
