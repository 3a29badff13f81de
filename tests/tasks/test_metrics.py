"""Metrics of one document, recomputed by hand."""

import math

import pytest

from sadi_bench.tasks.metrics import METRICS, normalised_answer, paper_match
from slow_loop import matches


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("A", True),
        (" a", True),
        ("\n A.\n", True),
        ("<pad>A</s>", True),
        ("A.</s>", True),
        ("A;!,?", True),
        ("A:", False),
        ("A .", False),  # the space before a mark stays: white space goes first
        ("AB", False),
        ("", False),
    ],
)
def test_the_papers_match_strips_deletes_its_marks_and_ignores_case(said, expected):
    assert paper_match(said, " A ") is expected
    assert matches(said, " A ") is expected


def test_the_papers_match_leaves_the_marks_of_the_right_answer():
    assert not paper_match("yes.", "yes.")
    assert paper_match("very positive", "Very Positive")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Rolling_Stones!", "rolling stones"),
        ("Rock ’n’ Roll", "rock n roll"),
        ("a Spider-Man´s `web‘", "spider man s web"),
        ("Athens, an ancient city", "athens ancient city"),
        ("The The", ""),
    ],
)
def test_answers_are_normalised_as_triviaqa_does(text, expected):
    assert normalised_answer(text) == expected


@pytest.mark.parametrize(
    ("answer", "aliases", "said", "expected"),
    [
        ("Onion", ["Allium_cepa", "Bulb onions"], " the ONION.", 1),
        ("Onion", ["Allium_cepa", "Bulb onions"], "Allium cepa", 1),
        ("Onion", ["Allium_cepa", "Bulb onions"], " onion bulb", 0),
        ("Rock 'n' Roll", [], "rock ’n’ roll", 1),
        ("Rock 'n' Roll", [], "rocknroll", 0),
        ("The The", [], "the the", 1),
        ("The The", [], " ", 0),
    ],
)
def test_exact_match_takes_the_answer_or_any_alias(answer, aliases, said, expected):
    doc = {"answer": answer, "aliases": aliases}
    assert METRICS["triviaqa"].compute(doc, [said]) == {"exact_match": expected}


@pytest.mark.parametrize(
    ("probabilities", "true", "expected"),
    [
        ([0.20, 0.10, 0.15, 0.05], 2, (1, 0.3 / 0.5, 1 / 2)),
        ([0.10, 0.30], 1, (0, 0.1 / 0.4, 0)),
        ([0.10, 0.40, 0.30, 0.20], 3, (0, 0.8, 2 / 3)),
    ],
)
def test_mc_scores_are_those_computed_by_hand(probabilities, true, expected):
    results = [(math.log(p), False) for p in probabilities]
    found = METRICS["truthfulqa_mc"].compute({"true_answers": true}, results)
    assert found == pytest.approx(dict(zip(("mc1", "mc2", "mc3"), expected, strict=True)))


def test_mc2_of_long_answers_does_not_underflow():
    results = [(-2000.0, False), (-2000.0 - math.log(3), False)]
    assert METRICS["truthfulqa_mc"].compute({"true_answers": 1}, results)["mc2"] == pytest.approx(
        3 / 4
    )


def test_a_tie_with_a_false_answer_is_no_win():
    found = METRICS["truthfulqa_mc"].compute({"true_answers": 1}, [(-1.0, True), (-1.0, True)])
    assert found == {"mc1": 0, "mc2": 0.5, "mc3": 0}
