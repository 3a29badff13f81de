"""The paper's tables, filled from runs: each row from the right run, the missing ones said."""

import pytest

from sadi_bench.results.reproduction import reproduced, reproduction_markdown


def run(task="copa", method="sadi-head", *, exact=0.6, unsteered=0.5, n=500, metric="exact_match",
        model="small", shots=0, english=False):  # fmt: skip
    def metrics(value: float) -> dict:
        gain = {"difference": value - unsteered, "p_value": 0.01 if value > unsteered else 0.5}
        interval = {"value": value, "ci95": [value - 0.04, value + 0.04]}
        return {"metrics": {"exact_match": interval | gain, "acc": {"value": 0.55}}}

    protocols = {"metric": metric, "unsteered": {"n": n} | metrics(unsteered)}
    if method not in ("none", "sft"):
        protocols |= {"heldout": metrics(exact), "oracle": metrics(exact + 0.1)}
    counts = {"pairs": 500, "select": n, "test": n}
    return {"paper": {"task": task, "method": method}, "model": model, "fewshot": shots,
            "english_pairs": english, "protocols": protocols, "counts": counts}  # fmt: skip


def row_of(frame, task, method, shots=0):
    same = (frame["task"] == task) & (frame["method"] == method) & (frame["shots"] == shots)
    (row,) = frame[same].to_dict("records")
    return row


def test_a_row_holds_what_its_run_measured_beside_what_the_paper_prints():
    row = row_of(reproduced(1, "small", {"r1": run()}), "copa", "sadi-head")
    assert (row["heldout"], row["n"]) == (0.6, 500)
    assert (row["ci95_low"], row["ci95_high"]) == (pytest.approx(0.56), pytest.approx(0.64))
    assert (row["gain"], row["oracle"]) == (pytest.approx(0.1), pytest.approx(0.7))
    assert (row["runs"], row["command"]) == ("r1", "")
    assert (row["paper"], row["paper_gain"]) == (pytest.approx(0.788), pytest.approx(0.08))


def test_the_unsteered_run_is_the_baseline_row():
    row = row_of(reproduced(1, "small", {"r1": run(method="none")}), "copa", "baseline")
    assert (row["heldout"], row["gain"], row["oracle"]) == (0.5, 0.0, None)


@pytest.mark.parametrize(
    "other",
    [{"model": "large"}, {"shots": 5}, {"english": True}, {"metric": "acc"}, {"task": "boolq"}],
)
def test_another_setting_fills_no_row(other):
    frame = reproduced(4, "small", {"r1": run(**other)})
    assert not frame["runs"].any()
    command = "sadi-bench task=copa model=small method=sadi-head select_by=exact_match"
    assert row_of(frame, "copa", "sadi-head")["command"] == command


def test_english_pairs_fill_table_10_and_no_other():
    runs = {"r1": run("xcopa_it", english=True)}
    assert row_of(reproduced(10, "small", runs), "xcopa_it", "sadi-head")["runs"] == "r1"
    assert not reproduced(8, "small", runs)["runs"].any()


def test_seeds_are_averaged_and_smaller_runs_are_left_out():
    runs = {str(i): run(exact=value) for i, value in enumerate((0.5, 0.6, 0.7))}
    runs |= {"small": run(exact=0.1, n=20)}
    row = row_of(reproduced(4, "small", runs), "copa", "sadi-head")
    assert row["runs"] == "0 1 2"
    assert (row["heldout"], row["ci95_low"]) == (pytest.approx(0.6), pytest.approx(0.5))
    assert row["p_value"] is None


@pytest.mark.parametrize(
    ("method", "typed"),
    [("sft", "method=none finetune=sft"), ("sft+sadi-head", "method=sadi-head finetune=sft"),
     ("baseline", "method=none"), ("iti", "method=iti")],
)  # fmt: skip
def test_a_missing_row_says_the_command_that_makes_it(method, typed):
    frame = reproduced(1, "small", {}, options="task.n_test=9")
    command = f"sadi-bench task=copa model=small {typed} select_by=exact_match task.n_test=9"
    assert row_of(frame, "copa", method)["command"] == command


def test_the_markdown_marks_gains_and_counts_what_is_missing():
    text = reproduction_markdown(reproduced(4, "small", {"r1": run()}))
    (line,) = (line for line in text.splitlines() if line.startswith("| copa | sadi-head"))
    assert "60.0 [56.0, 64.0] | +10.0* | 70.0 | 55.0 (55.0) | 78.8" in line
    assert text.count("| missing |") == 14
    assert "14 commands, all in the CSV" in text
