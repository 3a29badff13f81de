"""The tables about texts: what they show, and that they fit."""

import re

import pytest

from sadi_bench.results.text_tables import judged_table, texts_table

ROWS = {"unsteered": "unsteered", "heldout": "held-out cell", "oracle": "oracle cell"}
MEASURED = {"n": 9, "tokens": 11.25, "empty": 0.5, "repetition": 0.125, "perplexity": 8.04}


def fields(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def judged(scores: tuple[str, ...]) -> dict:
    found = {"value": 1.0, "n": 9, "ci95": [0.999, 1.0]}
    compared = found | {"difference": 0.1, "p_value": 0.0001, "gained": 1, "lost": 0}
    rows = {row: dict.fromkeys(scores, compared if row != "unsteered" else found) for row in ROWS}
    if len(scores) == 2:
        for row in rows.values():
            row["true_x_info"] = {"value": 1.0, "n": 9}
    return {"rows": rows}


def test_texts_are_told_in_tokens_percent_and_perplexity():
    header, unsteered, heldout = texts_table(
        {"unsteered": MEASURED, "heldout": MEASURED | {"empty": 1.0, "repetition": None}},
        {"unsteered": "unsteered", "heldout": "held-out cell"},
    )
    assert fields(header)[1:] == ["tokens", "empty %", "repeated %", "perplexity"]
    assert fields(unsteered) == ["unsteered", "11.2", "50.0", "12.5", "8.0"]
    assert fields(heldout) == ["held-out cell", "11.2", "100.0", "–", "8.0"]


@pytest.mark.parametrize(
    ("perplexity", "written"),
    [(None, "–"), (12345.678, "12345.7"), (3e300, "3.0e+300"), (float("inf"), "inf")],
)
def test_a_perplexity_of_any_size_has_room(perplexity, written):
    lines = texts_table({"unsteered": MEASURED | {"perplexity": perplexity}}, {"unsteered": "u"})
    assert fields(lines[1])[-1] == written
    assert max(map(len, lines)) <= 100


def test_a_judges_table_has_intervals_tests_and_the_product_without_either():
    title, header, unsteered, heldout, _ = judged_table(
        "truthfulqa", judged(("true", "info")), ROWS
    )
    assert title == "judge=truthfulqa"
    assert fields(header) == ["true %", "95 %", "p", "info %", "95 %", "p", "true × info %"]
    assert fields(unsteered) == ["unsteered", *["100.0", "[99.9, 100.0]"] * 2, "100.0"]
    assert fields(heldout)[1:4] == ["100.0", "[99.9, 100.0]", "<0.001"]


@pytest.mark.parametrize("kind", ["truthfulqa", "truthfulqa-offline", "a-judge-of-a-longer-name"])
def test_no_line_of_a_judges_table_is_wider_than_100_columns(kind):
    lines = judged_table(kind, judged(("true", "info")), ROWS)
    assert max(map(len, lines)) <= 100
