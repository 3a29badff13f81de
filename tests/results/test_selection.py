import numpy as np
import pandas as pd
import pytest

from sadi_bench.errors import SettingError
from sadi_bench.results.selection import select_cell

# Cells 1-6 are (top_k, strength) = (1, 5) (1, 15) (2, 5) (2, 15) (10, 5) (10, 15).
WORSE, BEST = [1, 0, 0, 0], [1, 1, 1, 0]


def columns(*cells: list[int]) -> np.ndarray:
    return np.array(cells).T


def test_the_best_steered_cell_is_chosen_with_its_parameters(make_grid):
    grid = make_grid({"select": columns(WORSE, WORSE, WORSE, BEST, WORSE, WORSE, [1, 1, 0, 0])})
    choice = select_cell(grid, "select", "acc")
    assert (choice.cell, choice.params) == (3, {"top_k": 2, "strength": 5})
    assert all(type(value) is int for value in choice.params.values())
    assert (choice.value, choice.n, choice.n_candidates) == (0.75, 4, 6)
    assert (choice.n_tied, choice.runner_up) == (1, 0.5)


def test_the_unsteered_model_is_no_candidate_even_when_it_is_best(make_grid):
    grid = make_grid({"select": columns([1, 1, 1, 1], WORSE, WORSE, BEST, WORSE, WORSE, WORSE)})
    assert select_cell(grid, "select").cell == 3


def test_a_tie_goes_to_the_smallest_intervention_and_is_counted(make_grid):
    scores = columns(WORSE, WORSE, WORSE, WORSE, BEST, BEST, BEST)
    choice = select_cell(make_grid({"select": scores}), "select")
    assert (choice.params, choice.n_tied, choice.runner_up) == (
        {"top_k": 2, "strength": 15},
        3,
        0.25,
    )


def test_a_tie_does_not_depend_on_how_cells_are_numbered_or_rows_ordered(make_grid):
    cells = [(10, 15.0), (10, 5.0), (2, 15.0), (2, 5.0)]
    grid = make_grid({"select": np.ones((3, 5), int)}, cells).sample(frac=1, random_state=0)
    assert select_cell(grid, "select").params == {"top_k": 2, "strength": 5}


def test_a_tie_of_signed_multipliers_goes_to_the_smallest_size(make_grid):
    cells = [(13, -2.0), (13, 1.0), (13, 2.0)]
    grid = make_grid({"select": np.ones((3, 4), int)}, cells)
    grid = grid.rename(columns={"top_k": "layer", "strength": "multiplier"})
    assert select_cell(grid, "select").params == {"layer": 13, "multiplier": 1}


def test_when_every_cell_ties_there_is_no_runner_up(make_grid):
    choice = select_cell(make_grid({"select": np.zeros((4, 7), int)}), "select", "exact_match")
    assert (choice.cell, choice.n_tied, choice.runner_up) == (1, 6, None)


@pytest.mark.parametrize("score", [1.0, np.nan])
def test_a_cell_with_one_nonfinite_row_never_wins(make_grid, score):
    scores = columns(WORSE, WORSE, WORSE, BEST, WORSE, WORSE, [1, 1, 0, 0])
    grid = make_grid({"select": scores.astype(float)})
    grid.loc[(grid["cell"] == 3) & (grid["doc_id"] == 0), ["acc", "finite"]] = [score, False]
    choice = select_cell(grid, "select")
    assert (choice.cell, choice.n_candidates) == (6, 5)


def test_a_nan_score_never_wins_though_its_row_says_finite(make_grid):
    grid = make_grid({"select": columns(*[WORSE] * 6, [1, 1, 0, 0]).astype(float)})
    grid.loc[(grid["cell"] == 6) & (grid["doc_id"] == 3), "acc"] = np.nan
    # pandas' mean skips NaN, and would give cell 6 two thirds.
    assert select_cell(grid, "select").cell == 1


def test_nonfinite_rows_of_another_split_or_of_the_unsteered_cell_exclude_nothing(make_grid):
    scores = columns(WORSE, WORSE, WORSE, BEST, WORSE, WORSE, WORSE)
    grid = make_grid({"select": scores, "test": scores})
    grid.loc[(grid["cell"] == 3) & (grid["split"] == "test"), "finite"] = False
    grid.loc[grid["cell"] == 0, "finite"] = False
    assert select_cell(grid, "select").cell == 3
    assert select_cell(grid, "test").cell != 3


def test_when_no_steered_cell_is_finite_the_user_reads_what_to_change(make_grid):
    grid = make_grid({"select": np.ones((4, 7), int)})
    grid.loc[(grid["cell"] > 0) & (grid["doc_id"] == 2), "finite"] = False
    with pytest.raises(SettingError, match="All 6 steered cells .* weaker"):
        select_cell(grid, "select")


def test_a_metric_that_was_not_measured_is_named(make_grid):
    grid = make_grid({"select": np.ones((4, 7), int)}).assign(acc=np.nan)
    with pytest.raises(SettingError, match="select_by=acc: .* measured: acc_norm, exact_match"):
        select_cell(grid, "select", "acc")


def test_a_cell_that_lacks_a_document_is_an_error_and_no_comparison(make_grid):
    grid = make_grid({"select": np.ones((4, 7), int)})
    with pytest.raises(ValueError, match="27 rows for 4 documents × 7 cells = 28"):
        select_cell(grid.drop(index=9), "select")
    twice = pd.concat([grid.drop(index=9), grid.loc[[10]]])
    with pytest.raises(ValueError, match="every cell needs every document once"):
        select_cell(twice, "select")
