"""Abstention, cross-fitting, random draws, groups, skipped documents: each on made-up grids."""

import numpy as np
import pandas as pd
import pytest

from results.conftest import protocols
from sadi_bench.results.protocols import Protocols
from sadi_bench.results.scored import Scored

FAST = {"n_resamples": 99}


def draws_of(grid: pd.DataFrame, n: int, per_draw: int = 2) -> pd.DataFrame:
    """Call each `per_draw` cells after cell 0 one draw."""
    draw = 1 + (grid["cell"] - 1) // per_draw
    return grid.assign(draw=draw.where(grid["cell"] > 0).clip(upper=n))


def mean_of(grid: pd.DataFrame, split: str, cell: int, metric: str = "acc") -> float:
    return grid[(grid["split"] == split) & (grid["cell"] == cell)][metric].mean()


def test_the_unsteered_cell_wins_the_row_that_may_abstain_where_it_is_best_or_ties(make_grid):
    select = np.zeros((4, 7), int)
    select[:2, 3] = 1
    test = np.random.default_rng(0).integers(0, 2, (20, 7))
    report = protocols(make_grid({"select": select, "test": test}), **FAST)
    assert report["heldout_abstain"]["cell"] == report["heldout"]["cell"] == 3
    select[:2, 0] = 1
    report = protocols(make_grid({"select": select, "test": test}), **FAST)
    abstained = report["heldout_abstain"]
    assert (report["heldout"]["cell"], abstained["cell"], abstained["params"]) == (3, 0, {})
    assert (
        abstained["selection"]["n_candidates"] == report["heldout"]["selection"]["n_candidates"] + 1
    )
    measured = abstained["metrics"]["acc"]
    assert (measured["difference"], measured["p_value"]) == (0.0, 1.0)
    assert measured["value"] == report["unsteered"]["metrics"]["acc"]["value"]


def test_cross_fitting_scores_each_half_with_the_cell_that_the_other_half_chose(random_grid):
    grid = random_grid(4)
    chosen = Protocols(Scored(grid, ["acc"]), "acc", seed=0, n_resamples=99, lowest=False)
    row, parts = chosen.report()["crossfit"], chosen.parts["crossfit"]
    one, other = parts
    assert sorted([*one.on, *other.on]) == list(range(90))
    assert abs(len(one.on) - len(other.on)) <= 1
    wide = grid.pivot(index=["split", "doc_id"], columns="cell", values="acc").to_numpy()
    scores = np.empty(90)
    for part, chooser in ((one, other), (other, one)):
        means = wide[chooser.on][:, 1:].mean(axis=0)
        assert part.cell == 1 + int(np.argmax(means))
        scores[part.on] = wide[part.on, part.cell]
    assert row["metrics"]["acc"]["value"] == pytest.approx(scores.mean())
    assert row["metrics"]["acc"]["difference"] == pytest.approx((scores - wide[:, 0]).mean())
    assert (row["n"], row["cell"], row["cells"]) == (90, None, [one.cell, other.cell])


def test_cross_fitting_never_cuts_a_group(random_grid):
    grid = random_grid(4)
    grid["group"] = grid["split"] + " " + (grid["doc_id"] // 4).astype(str)
    scored = Scored(grid, ["acc"])
    one, other = Protocols(scored, "acc", 0, 99, False).parts["crossfit"]
    assert not set(scored.groups[one.on]) & set(scored.groups[other.on])


def test_cross_fitting_needs_every_cell_on_both_splits(random_grid):
    grid = random_grid(4)
    few = grid[(grid["split"] == "select") | (grid["cell"] < 3)]
    assert protocols(few, **FAST)["crossfit"] is None
    assert protocols(random_grid(4, n_select=0), **FAST)["crossfit"] is None


def test_every_draw_chooses_its_own_cell_and_the_row_is_their_mean(random_grid):
    grid = draws_of(random_grid(6), 3)
    report = protocols(grid, **FAST)
    for row, split in (("heldout", "select"), ("oracle", "test")):
        best = [max(pair, key=lambda c: (mean_of(grid, split, c), -c)) for pair in
                ((1, 2), (3, 4), (5, 6))]  # fmt: skip
        values = [mean_of(grid, "test", cell) for cell in best]
        found = report[row]
        assert (found["cells"], found["cell"]) == (best, None)
        assert found["draws"]["values"]["acc"] == pytest.approx(values)
        assert found["draws"]["sd"]["acc"] == pytest.approx(np.std(values, ddof=1))
        assert found["metrics"]["acc"]["value"] == pytest.approx(np.mean(values))
        difference = np.mean(values) - mean_of(grid, "test", 0)
        assert found["metrics"]["acc"]["difference"] == pytest.approx(difference)
        assert found["draws"]["n"] == 3
    assert report["crossfit"]["draws"]["n"] == 3
    assert "draws" not in report["unsteered"]


def test_draws_that_abstain_are_draws(make_grid):
    select = np.zeros((4, 7), int)
    select[:2, 0], select[:3, 3] = 1, 1  # of three draws the second alone beats the unsteered cell
    grid = make_grid({"select": select, "test": np.random.default_rng(0).integers(0, 2, (20, 7))})
    abstained = protocols(draws_of(grid, 3), **FAST)["heldout_abstain"]
    assert (abstained["cells"], abstained["draws"]["n"]) == ([0, 3, 0], 3)
    values = [mean_of(grid, "test", cell) for cell in (0, 3, 0)]
    assert abstained["draws"]["values"]["acc"] == pytest.approx(values)
    assert abstained["metrics"]["acc"]["value"] == pytest.approx(np.mean(values))


def test_one_draw_that_is_a_grid_of_its_own_needs_no_axis(random_grid):
    report = protocols(random_grid(6), **FAST)
    assert all("draws" not in report[row] for row in ("heldout", "oracle", "crossfit"))


def test_where_documents_share_a_premise_no_mcnemar_is_used(random_grid):
    grid = random_grid(7)
    single = protocols(grid, **FAST)["heldout"]["metrics"]["acc"]
    grid["group"] = (grid["doc_id"] // 5).astype(str)
    grouped = protocols(grid, **FAST)["heldout"]["metrics"]["acc"]
    assert (single["test"], grouped["test"]) == ("mcnemar_exact", "sign_flip_groups")
    assert single["difference"] == grouped["difference"]
    assert (single["gained"], single["lost"]) == (grouped["gained"], grouped["lost"])
    assert single["ci95"] != grouped["ci95"]


def test_documents_of_no_group_are_alone_though_both_splits_number_them_alike(random_grid):
    grid = random_grid(7)
    grid["group"] = "#" + grid["doc_id"].astype(str)
    assert protocols(grid, **FAST)["crossfit"]["metrics"]["acc"]["test"] == "mcnemar_exact"
    grid["group"] = "passage " + grid["doc_id"].astype(str)
    assert protocols(grid, **FAST)["crossfit"]["metrics"]["acc"]["test"] == "sign_flip_groups"


def test_a_corrected_p_value_is_never_below_the_raw_one(random_grid):
    for seed in range(8):
        grid = random_grid(seed)
        grid = grid[grid["cell"] < 2]  # one cell: both tests ask the same
        oracle = protocols(grid, **FAST)["oracle"]["metrics"]["acc"]
        assert oracle["p_value_adjusted"] >= oracle["p_value"]


def test_skipped_documents_count_for_the_unsteered_model_alone(random_grid):
    grid = random_grid(8, n_select=0)
    grid["skipped"] = grid["doc_id"] % 5 == 0
    report = protocols(grid, **FAST)
    assert (report["unsteered"]["n"], report["oracle"]["n"]) == (50, 40)
    kept = grid[~grid["skipped"]]
    best = max(range(1, 7), key=lambda c: (mean_of(kept, "test", c), -c))
    assert report["oracle"]["cell"] == best
    found = report["oracle"]["metrics"]["acc"]
    assert found["value"] == pytest.approx(mean_of(kept, "test", best))
    assert found["difference"] == pytest.approx(found["value"] - mean_of(kept, "test", 0))


def test_selection_by_auc_takes_the_cell_with_the_best_auc(random_grid):
    grid = random_grid(9)
    rng = np.random.default_rng(0)
    grid["gold"] = grid["doc_id"] % 2
    skill = grid["cell"].map({0: 0, 1: 0, 2: 0, 3: 2.5, 4: 0, 5: 0, 6: 0})
    odds = rng.normal((2 * grid["gold"] - 1) * skill, 1)
    grid["choice_logprobs"] = [[-o / 2, o / 2] for o in odds]
    grid.attrs["answers"] = ["no", "yes"]
    report = protocols(grid, "auc", **FAST)
    assert (report["metric"], report["heldout"]["cell"]) == ("auc", 3)
    assert report["heldout"]["metrics"]["auc"]["value"] > 0.9
    assert protocols(grid, "acc_biased", **FAST)["heldout"]["cell"] == 3
