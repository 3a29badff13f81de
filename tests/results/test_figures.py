"""Figures 2 to 7: the numbers that are drawn."""

import numpy as np
import pandas as pd

from sadi_bench.results.paper.figure_numbers import (
    layer_counts,
    overlaps,
    pairs_curve,
    strength_curves,
)


def run(pairs=50, *, method="sadi-head", value=0.6, n=500, select=40, task="copa", dtype="float32"):
    row = {"metrics": {"paper_match": {"value": value, "ci95": [value - 0.1, value + 0.1]}}}
    steered = row if method.startswith("sadi") else None
    report = {"metric": "paper_match", "unsteered": row, "heldout": steered, "oracle": steered}
    counts = {"pairs": pairs, "select": select, "test": n}
    config = {"seed": 0, "method": {}, "model": {"dtype": dtype}, "task": {"n_pairs": pairs}}
    return {"paper": {"task": task, "method": method}, "model": "small", "fewshot": 0,
            "protocols": report, "counts": counts, "config": config}  # fmt: skip


def test_a_curve_is_the_mean_over_the_test_documents_by_strength_and_top_k(random_grid):
    grid = random_grid(0)
    means, unsteered, split = strength_curves(grid, "acc")
    assert (split, len(unsteered), means.shape) == ("test", 50, (2, 3))
    cell = grid[(grid["split"] == "test") & (grid["top_k"] == 2) & (grid["strength"] == 15)]
    assert means.loc[15.0, 2.0] == cell["acc"].mean()


def test_where_the_test_split_lacks_cells_the_select_split_is_drawn(random_grid):
    grid = random_grid(0)
    grid = grid[(grid["split"] == "select") | (grid["cell"] < 3)]
    means, unsteered, split = strength_curves(grid, "acc")
    assert (split, len(unsteered), means.shape) == ("select", 40, (2, 3))


def test_a_cell_that_left_the_number_range_is_a_gap(make_grid):
    scores = np.zeros((4, 7), dtype=int)
    grid = make_grid({"test": scores})
    grid.loc[(grid["cell"] == 1) & (grid["doc_id"] == 0), "finite"] = False
    assert np.isnan(strength_curves(grid, "acc")[0].loc[5.0, 1.0])


def test_pairs_are_an_axis_and_the_fine_tuned_model_stands_without_steering():
    runs = {"b": run(150), "a": run(50), "sft": run(50, method="sft", value=0.8)}
    runs |= {"small": run(250, n=4), "other": run(500, select=500), "nli": run(50, task="nli")}
    runs |= {"0": run(150, dtype="bfloat16")}
    frame = pairs_curve("small", runs)
    assert list(frame["run"]) == ["a", "b", "sft"]
    assert list(frame["heldout"]) == [0.6, 0.6, 0.8]
    assert frame["oracle"].isna().tolist() == [False, False, True]


def test_no_run_is_no_curve():
    assert pairs_curve("small", {}).empty


def elements(*places: tuple[int, int]) -> pd.DataFrame:
    """Rank elements (layer, index) in this order, as elements.csv."""
    frame = pd.DataFrame(places, columns=["layer", "index"]).assign(score=1.0)
    return frame.rename_axis("rank").reset_index()


def test_the_top_elements_are_counted_by_layer_and_empty_layers_are_zero():
    ranked = elements((3, 1), (1, 0), (3, 7), (0, 2))
    assert layer_counts(ranked, 3, num_layers=5).tolist() == [0, 1, 0, 2, 0]
    assert layer_counts(ranked, 100, num_layers=5).tolist() == [1, 1, 0, 2, 0]


def test_tasks_overlap_in_the_elements_that_both_have_among_their_best():
    ranked = {"a": elements((0, 1), (0, 2), (1, 1)), "b": elements((0, 2), (1, 1), (0, 1))}
    assert overlaps(ranked, 2).to_dict() == {"a": {"a": 2, "b": 1}, "b": {"a": 1, "b": 2}}
    assert overlaps(ranked, 3).loc["a", "b"] == 3
    assert overlaps(ranked | {"c": elements((2, 1), (1, 2))}, 1).loc["c", "a"] == 0
