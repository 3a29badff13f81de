import copy
import json
import re

import numpy as np
import pytest

from results.conftest import grid_of
from sadi_bench.results.report import report
from sadi_bench.results.strict_json import to_strict_json
from sadi_bench.results.tables import markdown_table, run_table

RUN_DIR = "results/runs/0123456789ab"


@pytest.fixture(scope="module")
def made():
    """Unsteered 52 %; cell 3 wins on select and has 60 % on test, cell 6 wins on test with 70 %."""
    select = np.zeros((10, 7), int)
    select[:, 3] = 1
    test = np.zeros((100, 7), int)
    for cell, right in {0: 52, 3: 60, 6: 70}.items():
        test[:right, cell] = 1
    grid = grid_of({"select": select, "test": test})
    grid["paper_match"] = 0
    grid["gold"] = grid["doc_id"] % 2
    rng = np.random.default_rng(0)
    odds = rng.normal(grid["gold"], 1)
    grid["choice_logprobs"] = [[-o, o] for o in odds]
    grid.attrs["answers"] = ["no", "yes"]
    ours = {
        "task": "movie_reviews",
        "model": "smollm2-135m",
        "method": "sadi-head",
        "fewshot": 0,
        "chance": 0.5,
        "counts": {"cells": 7},
        **report(grid, n_resamples=999),
    }
    # The table is also printed from a result read back.
    return json.loads(to_strict_json({"sadi_bench": ours}))


@pytest.fixture
def result(made):
    return copy.deepcopy(made)


def changed(result, **values):
    return {"sadi_bench": {**copy.deepcopy(result["sadi_bench"]), **values}}


def row(table: str, label: str, below: str = "") -> list[str]:
    lines = table[table.index(below) :].splitlines()
    return next(re.split(r"\s{2,}", line) for line in lines if line.startswith(label))


def test_a_row_holds_cell_value_interval_and_p(result):
    table = run_table(result, RUN_DIR)
    assert row(table, "unsteered")[1] == "52.0"
    label, cell, acc, interval, p, match, match_interval, match_p = row(table, "held-out cell")
    assert (cell, acc, p) == ("2, 5", "60.0", "0.008")  # 8 gained, none lost: 2 / 2^8 = 0.0078
    assert re.fullmatch(r"\[5\d\.\d, (6\d|70)\.\d\]", interval)
    assert (match, match_interval, match_p) == ("0.0", "[0.0, 3.7]", "1.000")
    assert row(table, "oracle cell")[1:3] == ["10, 15", "70.0"]


def test_the_oracles_p_is_the_one_corrected_for_the_choice(result):
    measured = result["sadi_bench"]["protocols"]["oracle"]["metrics"]["acc"]
    measured |= {"p_value": 0.011, "p_value_adjusted": 0.222}
    assert row(run_table(result, RUN_DIR), "oracle cell")[4] == "0.222"


def test_the_table_says_what_a_stranger_needs(result):
    table = run_table(result, RUN_DIR)
    assert table.startswith(
        "movie_reviews, smollm2-135m, sadi-head, 0-shot: n = 100 test documents; chance 50.0 %\n"
    )
    assert "held-out cell: top_k=2, strength=5; best acc of 6 cells on 10 other documents" in table
    assert "oracle cell: top_k=10, strength=15; best acc of 6 cells on the test documents" in table
    assert "an upper\n  bound, not a result." in table or "an upper bound" in table
    assert table.endswith(f"run directory: {RUN_DIR}\n")
    assert "nan" not in table.lower()
    assert "arXiv" not in table


PAPER = {"task": "copa", "method": "sadi-head", "unsteered": "none"}


def test_the_papers_number_stands_beside_paper_match_and_nothing_else(result):
    table = run_table(changed(result, paper=PAPER, model="bloomz-7b1"), RUN_DIR)
    assert row(table, "unsteered", "paper_match")[-1] == "76.40"
    assert row(table, "oracle cell", "paper_match")[-1] == "82.20"
    assert row(table, "held-out cell", "paper_match")[-1] == "1.000"
    named = [line for line in table.splitlines() if line.startswith("unsteered")]
    assert sum(line.count("76.40") for line in named) == 1
    assert "chose its cell on the test set" in table
    assert "paper's 82.20 (Table 5): Table 6 prints 78.80." in table


def test_the_paper_is_named_though_it_has_the_unsteered_number_alone(result):
    names = {"model": "llama2-7b", "paper": PAPER | {"task": "boolq", "method": "fixed-head"}}
    table = run_table(changed(result, **names), RUN_DIR)
    assert row(table, "unsteered", "paper_match")[-1] == "70.52"
    assert "arXiv 2410.12299" in table


def test_a_result_whose_settings_nobody_compared_has_no_number_of_the_paper(result):
    table = run_table(changed(result, task="copa", model="llama2-7b", method="sadi-head"), RUN_DIR)
    assert "arXiv" not in table


def test_the_test_behind_p_is_named(result):
    assert "exact McNemar; the oracle" in run_table(result, RUN_DIR)
    for key in ("heldout", "oracle"):
        result["sadi_bench"]["protocols"][key]["metrics"]["acc"]["test"] = "sign_flip"
    assert "exact McNemar or sign flips;" in run_table(result, RUN_DIR).replace("\n  ", " ")


def test_no_line_but_the_path_is_wider_than_100_columns(result):
    names = {"model": "llama2-7b", "paper": PAPER | {"task": "xcopa_zh"}, "english_pairs": True}
    for name, value in [("top_k", 500), ("a_long_hyper_parameter", 123456)]:
        wide = changed(result, **names)
        for key in ("heldout", "oracle"):
            wide["sadi_bench"]["protocols"][key]["params"][name] = value
        for found in wide["sadi_bench"]["protocols"].values():
            for metric in (
                (found or {}).get("metrics", {}).values() if isinstance(found, dict) else []
            ):
                metric |= {"value": 1.0, "ci95": [0.996, 1.0], "p_value": 0.0001}
        *lines, last = run_table(wide, "/very/long" * 20).splitlines()
        assert last == "run directory: " + "/very/long" * 20
        assert max(map(len, lines)) <= 100
        assert "100.0" in "".join(lines)


def test_as_many_metrics_stand_side_by_side_as_fit(result):
    two_by_two = run_table(result, RUN_DIR)
    assert len(re.findall("95 % interval", two_by_two)) == 4
    assert two_by_two.count("\nheld-out cell  ") == 3  # two of metrics, one of answers
    for key in ("heldout", "oracle"):
        result["sadi_bench"]["protocols"][key]["params"]["a_long_hyper_parameter"] = 1
    stacked = run_table(result, RUN_DIR)
    assert stacked.count("\nheld-out cell  ") == 5


def test_an_auc_is_a_fraction_and_every_other_score_a_percentage(result):
    table = run_table(result, RUN_DIR)
    assert re.search(r"auc +acc_biased %", table)
    value = result["sadi_bench"]["protocols"]["unsteered"]["metrics"]["auc"]["value"]
    second = [line for line in table.splitlines() if line.startswith("unsteered")][1]
    assert f"{value:.3f}" in second


def test_the_answers_are_shown_with_what_steering_changed(result):
    table = run_table(result, RUN_DIR)
    block = table[table.index("answers, % of documents") :]
    assert row(block, "right")[1:3] == ["50.0", "50.0"]
    answers = result["sadi_bench"]["answers"]
    shares = [f"{100 * share:.1f}" for share in answers["shares"]["heldout"]]
    changed_ = f"{100 * answers['changed']['heldout']:.1f}"
    assert row(block, "held-out cell")[1:] == [*shares, changed_, "8", "0"]


def test_a_constant_predictor_is_called_one(result):
    answers = result["sadi_bench"]["answers"]
    answers |= {"shares": {"unsteered": [0.0, 1.0]}, "constant": {"unsteered": "yes"}}
    answers["changed"] = {}
    table = " ".join(run_table(result, RUN_DIR).split())
    assert "Nearly all answers are yes (unsteered 100 of 100): acc is about the share of" in table


def test_the_sentence_closes_the_table(result):
    lines = run_table(result, RUN_DIR).splitlines()
    sentence = result["sadi_bench"]["diagnosis"]["sentence"]
    text = " ".join(line.strip() for line in lines[-8:-1])
    assert text.endswith(sentence)


def test_a_row_of_draws_says_how_many_and_how_far_apart(result):
    heldout = result["sadi_bench"]["protocols"]["heldout"]
    heldout["draws"] = {"n": 2, "values": {"acc": [0.5, 0.7]}, "sd": {"acc": 0.1414}}
    table = " ".join(run_table(result, RUN_DIR).split())
    assert "mean of 2 random draws; acc from 50.0 to 70.0, standard deviation 14.1." in table
    assert ", 2 draws, sd 14.1 |" in markdown_table([result])


def test_ties_nonfinite_documents_and_a_missing_held_out_row_are_said(result):
    protocols_ = copy.deepcopy(result["sadi_bench"]["protocols"])
    protocols_ |= dict.fromkeys(("heldout", "heldout_abstain", "crossfit"))
    protocols_["oracle"]["selection"]["n_tied"] = 4
    protocols_["oracle"]["n_nonfinite"] = 7
    table = run_table(changed(result, protocols=protocols_), RUN_DIR)
    assert "best acc of 6 cells (4 tied)" in table
    assert "oracle cell: 7 documents gave non-finite numbers." in table
    assert "no split to select on" in table
    assert "\nheld-out" not in table


def test_a_run_without_steering_prints_one_row_and_no_p(result):
    none = dict.fromkeys(("heldout", "heldout_abstain", "crossfit", "oracle"))
    only = {"protocols": result["sadi_bench"]["protocols"] | none, "diagnosis": None}
    table = run_table(
        changed(result, **only, model="llama2-7b", paper=PAPER | {"method": "none"}), RUN_DIR
    )
    assert "70.80" in row(table, "unsteered", "paper_match")
    assert "oracle" not in table
    assert "McNemar" not in table


def test_markdown_rows_are_sorted_and_complete(result):
    others = [
        changed(result, task="storycloze"),
        changed(result, task="copa", model="llama2-7b", paper=PAPER),
        changed(result, task="copa", model="bloomz-7b1", paper=PAPER),
    ]
    lines = markdown_table([result, *others]).splitlines()
    columns = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(line) for line in columns} == {17}
    assert [line[:2] for line in columns[2:]] == [
        ["copa", "bloomz-7b1"],
        ["copa", "llama2-7b"],
        ["movie_reviews", "smollm2-135m"],
        ["storycloze", "smollm2-135m"],
    ]
    assert [line[-1] for line in columns[2:]] == ["82.20", "78.80", "–", "–"]
    assert columns[4][3:7] == ["0", "100", "6", "52.0"]
    assert columns[4][7].startswith("60.0 [")


def test_the_papers_number_is_not_shown_beside_other_switches_or_prompts(result):
    def table(task, method):
        paper = {"task": task, "method": method, "unsteered": "none"}
        return run_table(changed(result, model="bloomz-7b1", paper=paper), RUN_DIR)

    assert row(table("copa", "sadi-head"), "oracle cell", "paper_match")[-1] == "82.20"
    assert row(table("copa", None), "unsteered", "paper_match")[-1] == "76.40"
    assert "82.20" not in table("copa", None)
    assert "arXiv" not in table(None, "sadi-head")


def test_the_released_procedure_is_labelled(result):
    table = " ".join(run_table(changed(result, protocol="released"), RUN_DIR).split())
    assert "protocol=released: the procedure of the paper's released code" in table
    assert "protocol=released" not in run_table(result, RUN_DIR)
