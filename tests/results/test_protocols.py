import json

import numpy as np
import pytest

from results.conftest import protocols
from sadi_bench.errors import SettingError
from sadi_bench.results.strict_json import to_strict_json

FAST = {"n_resamples": 99}


@pytest.mark.parametrize("metric", ["acc", "exact_match"])
def test_the_oracle_is_never_below_the_held_out_cell_on_the_metric_chosen_by(random_grid, metric):
    gaps = []
    for seed in range(12):
        report = protocols(random_grid(seed), metric, **FAST)
        gaps.append(report["optimism"]["oracle_minus_heldout"])
        values = [report[key]["metrics"][metric]["value"] for key in ("oracle", "heldout")]
        assert gaps[-1] == pytest.approx(values[0] - values[1])
    assert min(gaps) >= 0
    assert max(gaps) > 0


def test_selection_never_reads_the_test_split(random_grid):
    grid = random_grid(5)
    honest = protocols(grid, **FAST)
    poisoned = grid.copy()
    test = poisoned["split"] == "test"
    poisoned.loc[test, ["acc", "exact_match"]] = (poisoned["cell"] == 6).astype(int)
    poisoned.loc[test & (poisoned["cell"] == 2), "finite"] = False
    report = protocols(poisoned, **FAST)
    assert report["heldout"]["selection"] == honest["heldout"]["selection"]
    assert report["heldout"]["cell"] == honest["heldout"]["cell"] != 6
    # The poison works: it decides the oracle and the value reported.
    assert report["oracle"]["cell"] == 6 != honest["oracle"]["cell"]
    assert report["heldout"]["metrics"]["acc"]["value"] == 0


def test_values_are_those_of_the_test_split_and_the_select_split_stands_beside(make_grid):
    select = np.zeros((4, 7), int)
    select[:, 2] = 1
    test = np.zeros((10, 7), int)
    test[:4, 0], test[:7, 2], test[:8, 5] = 1, 1, 1
    report = protocols(make_grid({"select": select, "test": test}), **FAST)
    heldout, oracle = report["heldout"], report["oracle"]
    assert (heldout["cell"], heldout["params"]) == (2, {"top_k": 1, "strength": 15})
    for metric in ("acc", "acc_norm", "exact_match", "paper_match"):
        assert heldout["select_values"][metric] == 1.0
    measured = heldout["metrics"]["acc"]
    assert (measured["value"], measured["n"]) == (0.7, 10)
    assert measured["difference"] == pytest.approx(0.3)
    # Three documents gained, none lost: 2 / 2^3.
    assert (measured["gained"], measured["lost"], measured["p_value"]) == (3, 0, 0.25)
    assert (oracle["cell"], oracle["metrics"]["acc"]["value"]) == (5, 0.8)
    assert report["unsteered"]["metrics"]["acc"]["value"] == 0.4
    assert report["optimism"] == pytest.approx(
        {"heldout_select_minus_test": 0.3, "oracle_minus_heldout": 0.1}
    )


def test_the_oracle_says_what_it_is_and_its_p_value_pays_for_the_choice(random_grid):
    oracle = protocols(random_grid(1))["oracle"]
    assert "upper bound" in oracle["label"]
    assert "p_value_adjusted" in oracle["p_value_note"]
    measured = oracle["metrics"]["acc"]
    assert measured["p_value"] < measured["p_value_adjusted"] <= 1


def test_a_metric_that_never_changes_may_have_changed_either_way_elsewhere(random_grid):
    grid = random_grid(1).assign(exact_match=0)
    low, high = protocols(grid, **FAST)["heldout"]["metrics"]["exact_match"]["difference_ci95"]
    assert -low == high > 0


def test_without_a_select_split_the_oracle_stands_alone(random_grid):
    report = protocols(random_grid(1, n_select=0), **FAST)
    assert report["heldout"] is None
    assert report["oracle"]["select_values"] == {}
    assert report["optimism"] == dict.fromkeys(
        ("heldout_select_minus_test", "oracle_minus_heldout")
    )


def test_without_a_steered_cell_the_unsteered_model_is_reported(random_grid):
    grid = random_grid(1)
    report = protocols(grid[grid["cell"] == 0], **FAST)
    assert report["heldout"] is report["crossfit"] is report["oracle"] is None
    assert report["unsteered"]["n"] == 50


def test_graded_scores_get_a_sign_flip_test_and_no_counts(random_grid):
    grid = random_grid(1)
    grid["acc"] = grid["acc"] * 0.9 + 0.05 * (grid["doc_id"] % 3)
    measured = protocols(grid, **FAST)["heldout"]["metrics"]["acc"]
    assert measured["test"] == "sign_flip"
    assert measured["gained"] is None
    assert 0 < measured["p_value"] <= 1


def test_a_task_without_acc_reports_what_it_has_and_asks_for_another_metric(random_grid):
    grid = random_grid(1).drop(columns=["acc", "acc_norm", "paper_match"])
    assert list(protocols(grid, "exact_match", **FAST)["heldout"]["metrics"]) == ["exact_match"]
    with pytest.raises(SettingError, match="select_by=acc: not measured"):
        protocols(grid, "acc", **FAST)


def test_nonfinite_documents_of_the_chosen_cell_are_counted(random_grid):
    grid = random_grid(2)
    cell = protocols(grid, **FAST)["heldout"]["cell"]
    rows = (grid["split"] == "test") & (grid["cell"] == cell) & (grid["doc_id"] < 3)
    grid.loc[rows, "finite"] = False
    grid["acc"] = grid["acc"].astype(float)
    grid.loc[rows, "acc"] = np.nan
    report = protocols(grid, **FAST)
    assert report["heldout"]["n_nonfinite"] == 3
    assert report["heldout"]["metrics"]["acc"]["value"] is None
    assert report["heldout"]["metrics"]["exact_match"]["value"] is not None
    assert report["oracle"]["cell"] != cell


def test_the_report_repeats_with_its_seed_and_survives_json(random_grid):
    report = protocols(random_grid(3), seed=7, **FAST)
    assert json.loads(to_strict_json(report)) == report
    assert protocols(random_grid(3).sample(frac=1, random_state=0), seed=7, **FAST) == report
