"""The paper's tables, filled from runs: each row from the right run, the missing ones said."""

import numpy as np
import pandas as pd
import pytest

from sadi_bench.results.formatting import seeds
from sadi_bench.results.paper.domains import DOMAIN_OF_SUBJECT, DOMAINS, domain_scores
from sadi_bench.results.paper.reproduction import paper_model, reproduced
from sadi_bench.results.paper.reproduction_text import explained, remarks, reproduction_markdown

OFFLINE = "judge: trained here, not the paper's"


def measured(value, unsteered, n, names):
    interval = {"value": value, "n": n, "ci95": [value - 0.04, value + 0.04]}
    gain = {"difference": value - unsteered, "p_value": 0.01 if value > unsteered else 0.5}
    gain |= {"test": "mcnemar_exact"}
    return {"acc": {"value": 0.55, "n": n}} | {name: interval | gain for name in names}


def rows_of(exact, unsteered, n, names, steered):
    rows = {"unsteered": measured(unsteered, unsteered, n, names)}
    for name in names:
        del rows["unsteered"][name]["difference"], rows["unsteered"][name]["p_value"]
    if steered:
        rows["heldout"] = measured(exact, unsteered, n, names)
        rows["oracle"] = measured(exact + 0.1, unsteered, n, names)
    return rows


def config_of(seed=0, **method):
    """Write the part of a resolved config that tells runs apart."""
    given = {"kind": "sadi", "site": "head", "top_k": [2, 6], "strength": [5, 20], "seed": 0}
    return {"seed": seed, "runs_dir": "runs", "model": {"dtype": "float32"},
            "method": given | method}  # fmt: skip


def run(task="copa", method="sadi-head", *, exact=0.6, unsteered=0.5, n=500, metric="paper_match",
        model="small", shots=0, english=False, pairs=500, judged=None, **more):  # fmt: skip
    names = ("mc1", "mc2", "mc3") if metric == "mc1" else tuple({metric, "exact_match"})
    steered = method not in ("none", "sft")
    rows = rows_of(exact, unsteered, n, names, steered)
    protocols = {"metric": metric, "heldout": None, "oracle": None, "crossfit": None}
    protocols |= {row: {"n": n, "metrics": metrics} for row, metrics in rows.items()}
    counts = {"pairs": pairs, "select": n, "test": n, "cells": 5 if steered else 1}
    if judged:
        found = rows_of(exact, unsteered, n, ("true", "info"), steered)
        for scores in found.values():
            scores["true_x_info"] = {"value": scores["true"]["value"] ** 2, "n": n}
        note = OFFLINE if judged.endswith("offline") else None
        more["judged"] = {judged: {"rows": found, "note": note}}
    given = {"paper": {"task": task, "method": method}, "model": model, "fewshot": shots,
             "english_pairs": english, "protocols": protocols, "counts": counts}  # fmt: skip
    return given | {"config": config_of()} | more


def row_of(frame, task, method, shots=0, metric="paper_match"):
    same = (frame["task"] == task) & (frame["method"] == method)
    same &= (frame["shots"] == shots) & (frame["metric"] == metric)
    (row,) = frame[same].to_dict("records")
    return row


def test_a_row_holds_what_its_run_measured_beside_what_the_paper_prints():
    row = row_of(reproduced(1, "small", {"r1": run()}), "copa", "sadi-head")
    assert (row["heldout"], row["n"], row["n_runs"]) == (0.6, 500, 1)
    assert (row["ci95_low"], row["ci95_high"]) == (pytest.approx(0.56), pytest.approx(0.64))
    assert (row["gain"], row["oracle"]) == (pytest.approx(0.1), pytest.approx(0.7))
    assert (row["runs"], row["command"]) == ("r1", "")
    assert (row["paper"], row["paper_gain"]) == (pytest.approx(0.788), pytest.approx(0.08))


def test_the_unsteered_run_is_the_baseline_row():
    row = row_of(reproduced(1, "small", {"r1": run(method="none")}), "copa", "baseline")
    assert (row["heldout"], row["gain"], row["oracle"]) == (0.5, None, None)
    assert row["paper_gain"] is None


def test_training_gains_against_the_baseline_and_steering_it_against_training():
    runs = {"base": run(method="none", unsteered=0.5), "sft": run(method="sft", unsteered=0.9)}
    runs |= {"both": run(method="sft+sadi-head", unsteered=0.9, exact=0.95)}
    frame = reproduced(1, "small", runs)
    sft, both = (row_of(frame, "copa", method) for method in ("sft", "sft+sadi-head"))
    assert (sft["gain"], both["gain"]) == (pytest.approx(0.4), pytest.approx(0.05))
    assert (sft["paper_gain"], both["paper_gain"]) == (pytest.approx(0.224), pytest.approx(0.014))


def test_the_papers_gain_has_a_baseline_where_its_table_leaves_it_to_another():
    row = row_of(reproduced(4, "small", {}), "triviaqa", "random-head", metric="exact_match")
    assert (row["paper"], row["paper_gain"]) == (pytest.approx(0.429), pytest.approx(0.013))
    assert row_of(reproduced(6, "bloomz-7b1", {}), "copa", "sadi-head")["paper_gain"] == (
        pytest.approx(0.08)
    )


@pytest.mark.parametrize(
    "other",
    [
        {"model": "large"},
        {"shots": 5},
        {"english": True},
        {"metric": "acc"},
        {"task": "boolq"},
        {"metric": "exact_match"},
    ],
)
def test_another_setting_fills_no_row(other):
    frame = reproduced(4, "small", {"r1": run(**other)})
    assert not frame["runs"].any()
    command = "sadi-bench task=copa model=small method=sadi-head select_by=paper"
    assert row_of(frame, "copa", "sadi-head")["command"] == command


def test_english_pairs_fill_table_10_and_no_other():
    runs = {"r1": run("xcopa_it", english=True)}
    assert row_of(reproduced(10, "small", runs), "xcopa_it", "sadi-head")["runs"] == "r1"
    assert not reproduced(8, "small", runs)["runs"].any()


def test_seeds_are_averaged_and_smaller_runs_are_left_out():
    runs = {
        str(i): run(exact=value, config=config_of(i)) for i, value in enumerate((0.5, 0.6, 0.7))
    }
    runs |= {"small": run(exact=0.1, n=20)}
    frame = reproduced(4, "small", runs)
    row = row_of(frame, "copa", "sadi-head")
    assert (row["runs"], row["n_runs"]) == ("0 1 2", 3)
    assert (row["heldout"], row["ci95_low"]) == (pytest.approx(0.6), pytest.approx(0.5))
    assert row["p_value"] is None
    assert row["left_out"] == "small"
    assert "60.0 ± 10.0 (3 runs) | +10.0 |" in reproduction_markdown(frame)
    assert "the mean of N ± standard deviation" in explained(frame)
    assert "Runs of other settings or sizes, left out: copa sadi-head: small." in remarks(frame, "")


@pytest.mark.parametrize(
    "other",
    [
        {"config": config_of(1, strength=[5, 20, 40])},
        {"config": config_of(1) | {"model": {"dtype": "bfloat16"}}},
        {"config": config_of(1), "code": {"digest": "other"}},
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_never_averaged(other):
    runs = {"a": run(exact=0.6), "b": run(exact=0.8, **other)}
    row = row_of(reproduced(4, "small", runs), "copa", "sadi-head")
    assert (row["n_runs"], row["heldout"]) in {(1, 0.6), (1, 0.8)}
    assert {row["runs"], row["left_out"]} == {"a", "b"}


def test_a_row_takes_the_dtype_and_the_grid_that_the_other_methods_have():
    halves = {"model": {"dtype": "bfloat16"}}
    runs = {"z-half": run(config=config_of() | halves), "z-fine": run(config=config_of(top_k=[1]))}
    runs |= {"a": run(), "b": run(method="random-head"), "c": run(method="fixed-head")}
    assert row_of(reproduced(4, "small", runs), "copa", "sadi-head")["runs"] == "a"


def test_runs_that_were_written_to_other_folders_are_of_one_setting():
    elsewhere = config_of(1) | {"runs_dir": "/other"}
    runs = {"a": run(exact=0.5), "b": run(exact=0.7, config=elsewhere)}
    row = row_of(reproduced(4, "small", runs), "copa", "sadi-head")
    assert (row["runs"], row["heldout"]) == ("a b", pytest.approx(0.6))


def with_draws(values, **more):
    drawn = run(method="random-head", **more)
    spread = {"n": len(values), "values": {"paper_match": values}, "sd": {"paper_match": 0.0}}
    drawn["protocols"]["heldout"]["draws"] = spread
    return drawn


def test_random_draws_are_a_mean_a_spread_and_a_place_for_the_others():
    values = [0.4, 0.5, 0.6, 0.7]
    runs = {"sadi": run(exact=0.6), "drawn": with_draws(values)}
    frame = reproduced(4, "small", runs)
    drawn, sadi = (row_of(frame, "copa", f"{kind}-head") for kind in ("random", "sadi"))
    assert (drawn["draws"], drawn["heldout"]) == (4, pytest.approx(0.55))
    assert drawn["gain"] == pytest.approx(0.05)
    assert drawn["ci95_high"] - drawn["heldout"] == pytest.approx(np.std(values, ddof=1))
    assert (drawn["p_value"], drawn["p_random"]) == (None, None)
    assert sadi["p_random"] == pytest.approx((1 + 2) / (1 + 4))
    assert "| 55.0 ± 12.9 (4 draws) | +5.0 |" in reproduction_markdown(frame)
    assert "p, draws: (1 + random draws at least as good)" in explained(frame)


@pytest.mark.parametrize(
    "other",
    [
        {"config": config_of(top_k=[1, 2])},
        {"config": config_of(seed=1)},
        {"config": config_of(site="neuron")},
        {"pairs": 50},
    ],
)
def test_draws_of_another_grid_seed_or_size_are_no_measure_of_a_run(other):
    runs = {"sadi": run(exact=0.6), "drawn": with_draws([0.4, 0.5], **other)}
    row = row_of(reproduced(4, "small", runs), "copa", "sadi-head")
    assert pd.isna(row["p_random"])


def test_a_mark_is_for_what_survives_the_correction_for_all_rows():
    weak = run("boolq", exact=0.6)
    weak["protocols"]["heldout"]["metrics"]["paper_match"]["p_value"] = 0.04
    runs = {"weak": weak, "strong": run("nli"), "lost": run("sst2", exact=0.4)}
    frame = reproduced(1, "small", runs)
    found = {task: row_of(frame, task, "sadi-head")["p_holm"] for task in ("nli", "boolq", "sst2")}
    assert found == {"nli": pytest.approx(0.03), "boolq": pytest.approx(0.08), "sst2": 0.5}
    text = reproduction_markdown(frame)
    assert "| +10.0* | 0.010 | 0.030 |" in text
    assert "| +10.0 | 0.040 | 0.080 |" in text


def test_a_row_has_its_cells_its_cross_fitted_value_and_its_auc():
    one = run()
    report = one["protocols"]
    report["crossfit"] = {"metrics": {"paper_match": {"value": 0.57, "n": 700}}}
    report["unsteered"]["metrics"]["auc"] = {"value": 0.655}
    report["heldout"]["metrics"]["auc"] = {"value": 0.66}
    pooled = run("winogrande")
    pooled["protocols"]["unsteered"]["metrics"]["auc_pooled"] = {"value": 0.5}
    frame = reproduced(1, "small", {"r1": one, "r2": pooled})
    row = row_of(frame, "copa", "sadi-head")
    assert (row["cells"], row["crossfit"]) == (4, 0.57)
    assert (row["auc"], row["auc_unsteered"]) == (0.66, 0.655)
    assert row_of(frame, "winogrande", "sadi-head")["auc_unsteered"] == 0.5
    text = reproduction_markdown(frame)
    assert "| 57.0 | 70.0 | 0.660 (0.655) | 55.0 (55.0) |" in text
    assert "| cells | n |" in text


ODD_AVERAGES = {("sft", "average"), ("sft+sadi-hidden", "average")}


@pytest.mark.parametrize(("table", "name"), [(1, "average"), (8, "xcopa_average")])
def test_the_papers_averages_are_over_all_tasks_that_it_has_of_a_method(table, name):
    frame = reproduced(table, "small", {})
    averages = frame[frame["task"] == name]
    assert list(frame["task"][-len(averages) :].unique()) == [name]
    for row in averages.itertuples():
        tasks = frame[(frame["method"] == row.method) & (frame["task"] != name)]["paper"]
        exact = 100 * tasks.astype(float).mean()
        odd = (row.method, name) in ODD_AVERAGES
        assert (abs(exact - 100 * row.paper) > 0.0051) == odd == (row.paper_note != "")
        assert not odd or f"{len(tasks)} tasks that it prints is {exact:.4f}" in row.paper_note


def test_an_average_is_there_where_all_of_a_methods_tasks_were_measured():
    seven = ("copa", "storycloze", "nli", "mmlu", "sst2", "boolq", "winogrande")
    runs = {task: run(task, exact=0.5 + i / 100) for i, task in enumerate(seven)}
    runs |= {f"{task}-iti": run(task, "iti") for task in seven[1:]}
    frame = reproduced(1, "small", runs)
    row, iti = (row_of(frame, "average", method) for method in ("sadi-head", "iti"))
    assert (row["n_tasks"], row["heldout"]) == (7, pytest.approx(0.53))
    assert (row["gain"], row["command"]) == (pytest.approx(0.03), "")
    assert row["paper_gain"] == pytest.approx((70.08 - 64.85) / 100, abs=1e-4)
    assert pd.isna(iti["n_tasks"]) and pd.isna(iti["heldout"])
    text = reproduction_markdown(frame)
    assert "| average | sadi-head | – | – | 53.0 (7 tasks) | +3.0 |" in text
    assert "| average | iti | missing |" in text


def test_runs_with_other_numbers_of_pairs_are_no_seeds():
    runs = {"more": run(pairs=950), "fewer": run(pairs=50), "usual": run(pairs=500)}
    runs |= {"beside": run(method="fixed-head", pairs=500)}
    assert row_of(reproduced(4, "small", runs), "copa", "sadi-head")["runs"] == "usual"


def test_a_domain_of_mmlu_is_a_part_of_its_run():
    domains = {"STEM": rows_of(0.4, 0.3, 90, ("paper_match",), True)}
    frame = reproduced(2, "small", {"r1": run("mmlu", domains=domains)})
    stem = row_of(frame, "mmlu_stem", "sadi-head")
    assert (stem["heldout"], stem["n"], stem["p_value"]) == (0.4, 90, 0.01)
    assert stem["paper"] == pytest.approx(0.3935)
    missing = row_of(frame, "mmlu_other", "baseline")
    command = "sadi-bench task=mmlu model=small method=none select_by=paper"
    assert missing["command"] == command
    assert set(frame["task"]) == set(DOMAINS)


def test_toxicity_is_a_share_and_less_of_it_is_a_gain_below_zero():
    runs = {"r1": run("toxigen", exact=0.2, metric="toxicity", shots=5, judge_note=OFFLINE)}
    frame = reproduced(3, "small", runs)
    row = row_of(frame, "toxigen", "sadi-head", 5, "toxicity")
    assert (row["heldout"], row["gain"]) == (0.2, pytest.approx(-0.3))
    assert (row["paper"], row["paper_gain"]) == (pytest.approx(0.345), pytest.approx(-0.1521))
    text = reproduction_markdown(frame)
    assert "| toxigen, 5-shot | toxicity (less is better) | sadi-head | 4 | 500 | 20.0 [" in text
    assert f"{OFFLINE}." in remarks(frame, "make table3")
    assert "a gain is below 0" in explained(frame)


def test_the_papers_judge_goes_before_another_and_the_two_are_never_averaged():
    theirs = {"metric": "toxicity", "shots": 5, "judge_note": None}
    runs = {"offline": run("toxigen", **theirs | {"judge_note": OFFLINE})}
    runs |= {"a": run("toxigen", **theirs), "b": run("toxigen", **theirs)}
    row = row_of(reproduced(3, "small", runs), "toxigen", "sadi-head", 5, "toxicity")
    assert (row["runs"], row["judge_note"]) == ("a b", None)


def test_truthfulqa_has_rows_for_choices_and_for_judged_texts():
    runs = {"r1": run("truthfulqa", metric="mc1", shots=5, judged="truthfulqa-offline")}
    frame = reproduced(3, "small", runs)
    metrics = ("true", "info", "true_x_info", "mc1", "mc2", "mc3")
    rows = {name: row_of(frame, "truthfulqa", "sadi-head", 5, name) for name in metrics}
    assert {row["runs"] for row in rows.values()} == {"r1"}
    assert rows["true_x_info"]["gain"] == pytest.approx(0.36 - 0.25)
    assert (rows["true_x_info"]["p_value"], rows["true_x_info"]["ci95_low"]) == (None, None)
    assert (rows["info"]["judge_note"], rows["mc1"]["judge_note"]) == (OFFLINE, None)
    assert rows["mc2"]["paper"] == pytest.approx(0.5465)
    assert "| truthfulqa, 5-shot | true × info | sadi-head | 4 | 500 | 36.0 | +11.0 |" in (
        reproduction_markdown(frame)
    )


def test_a_run_whose_texts_were_not_judged_misses_the_judged_rows_alone():
    frame = reproduced(3, "small", {"r1": run("truthfulqa", metric="mc1", shots=5)})
    assert row_of(frame, "truthfulqa", "sadi-head", 5, "mc3")["runs"] == "r1"
    assert row_of(frame, "truthfulqa", "sadi-head", 5, "true")["command"] == (
        "sadi-bench task=truthfulqa model=small method=sadi-head task.fewshot=5 select_by=paper "
        "judge=auto"
    )


def test_shots_are_rows_of_their_own():
    runs = {"r0": run("sst5", exact=0.3), "r5": run("sst5", exact=0.5, shots=5)}
    frame = reproduced(7, "small", runs)
    assert [row_of(frame, "sst5", "sadi-head", shots)["runs"] for shots in (0, 5)] == ["r0", "r5"]
    assert list(frame["shots"][:4]) == [0, 0, 5, 5]
    assert set(frame["metric"]) == {"paper_match", "mc1", "mc2", "mc3"}


@pytest.mark.parametrize(
    ("method", "typed"),
    [("sft", "method=none finetune=sft"), ("sft+sadi-head", "method=sadi-head finetune=sft"),
     ("baseline", "method=none"), ("iti", "method=iti")],
)  # fmt: skip
def test_a_missing_row_says_the_command_that_makes_it(method, typed):
    frame = reproduced(1, "small", {}, options="task.n_test=9")
    command = f"sadi-bench task=copa model=small {typed} select_by=paper task.n_test=9"
    assert row_of(frame, "copa", method)["command"] == command


def test_a_model_of_the_papers_stands_beside_its_own_numbers():
    assert paper_model(5, "mistral-7b") == "mistral-7b"
    assert paper_model(5, "small") == "bloomz-7b1"
    assert paper_model(1, "llama2-7b") == "llama2-7b-chat"
    row = row_of(reproduced(5, "mistral-7b", {}), "copa", "sadi-head")
    assert (row["paper"], row["paper_gain"]) == (pytest.approx(0.92), pytest.approx(0.072))


def test_the_markdown_marks_gains():
    text = reproduction_markdown(reproduced(4, "small", {"r1": run()}))
    (line,) = (
        line for line in text.splitlines() if line.startswith("| copa | paper_match | sadi-head")
    )
    assert "60.0 [56.0, 64.0] | +10.0* | 0.010 | 0.010 | 70.0 | 55.0 (55.0) | 78.80 | +8.0" in line
    assert text.count("| missing |") == 14


def test_the_table_says_which_test_its_p_is_of():
    grouped = run("nli")
    grouped["protocols"]["heldout"]["metrics"]["paper_match"]["test"] = "sign_flip"
    told = explained(reproduced(1, "small", {"r1": run(), "r2": grouped}))
    assert "- p: of Δ (mcnemar exact or sign flip)" in told


def test_the_methods_seed_is_shown_where_it_is_another_than_the_runs():
    assert seeds({"seed": 3, "method": {"seed": 3}}) == "3"
    assert seeds({"seed": 3, "method": {"kind": "none"}}) == "3"
    assert seeds({"seed": 3, "method": {"seed": 0}}) == "3 (method 0)"


def test_every_missing_run_is_listed_once_below_the_table():
    frame = reproduced(3, "small", {"r1": run("triviaqa", metric="exact_match")})
    told, commands = remarks(frame, "make table3 MODEL=small")[-2:]
    assert told.startswith("Missing runs: 18. `make table3 MODEL=small` makes them all")
    lines = commands.splitlines()[1:-1]
    assert len(lines) == len(set(lines)) == 18


def test_odd_numbers_of_the_paper_are_printed_with_a_note():
    (note,) = remarks(reproduced(1, "small", {}), "make table1")[:1]
    assert note == (
        "The paper's numbers (copa sft+sadi-hidden paper_match 94.90): cannot be reached with 500 "
        "test documents."
    )
    english = remarks(reproduced(10, "small", {}), "make table10")[0]
    assert english == "The paper's numbers: elements identified on English pairs."


SUBJECTS = [{"subject": "anatomy"}, {"subject": "sociology"}]


@pytest.mark.parametrize(
    "columns",
    [
        SUBJECTS,
        [{"row": subject} for subject in SUBJECTS],
        [{"domain": "STEM"}, {"domain": "social sciences"}],  # as older runs wrote them
    ],
)
def test_domain_scores_are_those_of_the_documents_whose_subject_is_of_a_domain(make_grid, columns):
    scores = np.array([[0, 1, 1], [0, 1, 0], [1, 0, 0], [1, 1, 0]])
    grid = make_grid({"test": scores, "select": scores}, cells=[(1, 5.0), (2, 5.0)])
    grid["paper_match"] = grid["acc"]
    docs = [{"split": split, "doc_id": i} | columns[i // 2]
            for split in ("select", "test") for i in range(4)]  # fmt: skip
    cells = {"unsteered": 0, "heldout": 1, "oracle": 2}
    report = {row: {"cell": cell, "n_nonfinite": 0} for row, cell in cells.items()}
    found = domain_scores(docs, grid, report)
    assert set(found) == {"STEM", "social sciences"}
    values = {row: found["STEM"][row]["paper_match"]["value"] for row in cells}
    assert values == {"unsteered": 0.0, "heldout": 1.0, "oracle": 0.5}
    heldout = found["social sciences"]["heldout"]["paper_match"]
    assert (heldout["n"], heldout["difference"], heldout["p_value"]) == (2, -0.5, 1.0)


def test_there_are_57_subjects_in_the_four_domains_of_table_2():
    assert len(DOMAIN_OF_SUBJECT) == 57
    assert set(DOMAIN_OF_SUBJECT.values()) == set(DOMAINS.values())
