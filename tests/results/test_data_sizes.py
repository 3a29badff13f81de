"""Table 9: how much data a run had, beside the model without steering."""

from sadi_bench.results.paper.data_sizes import data_sizes, data_sizes_markdown


def run(task="copa", method="none", model="small", n=500, paper_pairs=500, **more):
    found = {"value": 0.4, "n": n, "ci95": [0.35, 0.45]}
    report = {"metric": "exact_match", "unsteered": {"metrics": {"exact_match": found}}}
    counts = {"pairs": 300, "select": 200, "test": n}
    given = {"paper": {"task": task, "method": method}, "model": model, "fewshot": 0}
    given |= {"protocols": report, "counts": counts, "chance": 0.5}
    given |= {"config": {"task": {"paper_pairs": paper_pairs}}}
    return given | more


def test_a_row_has_the_sizes_of_the_largest_run_without_steering():
    runs = {"small": run(n=20), "large": run(), "steered": run("nli", method="sadi-head")}
    runs |= {"other": run("nli", model="other"), "own": run(None)}
    (row,) = data_sizes("small", runs).to_dict("records")
    assert (row["task"], row["runs"]) == ("copa", "large")
    assert (row["pairs"], row["select"], row["test"], row["paper_pairs"]) == (300, 200, 500, 500)


def test_shots_and_languages_are_rows_of_their_own():
    runs = {"a": run("xcopa_it"), "b": run("xcopa_it", english_pairs=True, chance=None)}
    runs |= {"c": run("sst5", fewshot=5, paper_pairs=None)}
    text = data_sizes_markdown(data_sizes("small", runs))
    assert "| sst5, 5-shot | exact_match | 300 | – | 200 | 500 | 50.0 | 40.0 [35.0, 45.0] |" in text
    assert "| xcopa_it, English pairs | exact_match | 300 | 500 | 200 | 500 | – |" in text


def test_no_run_is_no_table():
    assert data_sizes("small", {}).empty
