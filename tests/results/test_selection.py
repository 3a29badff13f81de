import numpy as np
import pandas as pd
import pytest

from sadi_bench.errors import SettingError
from sadi_bench.results.selection import cells_in_the_race, select_cell

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


def test_a_tie_goes_by_the_column_size_and_by_no_parameter(make_grid):
    grid = make_grid({"select": np.ones((3, 7), int)})
    grid["size"] = np.array([0, 3, 4, 2, 1, 1, 5])[grid["cell"]]
    assert select_cell(grid, "select").cell == 4
    assert cells_in_the_race(grid, "acc", 4) == [0, 1, 3, 4, 5]


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


def test_in_the_race_stay_the_unsteered_cell_and_the_best(make_grid):
    scores = columns(BEST, WORSE, BEST, WORSE, [1, 1, 0, 0], WORSE, WORSE)
    select = make_grid({"select": scores})
    kept = {n: cells_in_the_race(select, "acc", n) for n in (1, 2, 3, 6, 99, None)}
    assert kept == {1: [0, 2], 2: [0, 2, 4], 3: [0, 1, 2, 4], 6: [*range(7)], 99: [*range(7)],
                    None: [*range(7)]}  # fmt: skip
    assert cells_in_the_race(select, "acc", 1, lowest=True) == [0, 1]
    assert cells_in_the_race(select, "acc", 4, lowest=True) == [0, 1, 3, 5, 6]


@pytest.mark.parametrize("lowest", [False, True])
def test_the_cell_that_is_chosen_is_always_in_the_race_and_first_among_the_tied(make_grid, lowest):
    cells = [(10, 15.0), (10, -5.0), (2, 15.0), (2, 5.0)]
    rng = np.random.default_rng(0)
    for _ in range(20):
        grid = make_grid({"select": rng.integers(0, 2, (2, 5))}, cells)
        chosen = select_cell(grid, "select", lowest=lowest).cell
        assert cells_in_the_race(grid, "acc", 1, lowest) == [0, chosen]
    tied = make_grid({"select": np.zeros((2, 5))}, cells)
    kept = [cells_in_the_race(tied, "acc", n, lowest) for n in range(1, 5)]
    assert kept == [[0, 4], [0, 3, 4], [0, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_a_cell_that_left_the_number_range_is_out_of_the_race(make_grid):
    select = make_grid({"select": columns(*[WORSE] * 5, BEST, BEST)})
    select.loc[(select["cell"] == 5) & (select["doc_id"] == 1), "finite"] = False
    assert cells_in_the_race(select, "acc", 2) == [0, 1, 6]
    assert 5 not in cells_in_the_race(select, "acc", 99)
    select.loc[select["cell"] > 0, "finite"] = False
    assert cells_in_the_race(select, "acc", 2) == [0]


def test_without_steering_the_race_is_the_unsteered_cell_alone(make_grid):
    alone = make_grid({"select": np.zeros((3, 1), int)}, [])
    assert cells_in_the_race(alone.drop(columns=["top_k", "strength"]), "acc", 8) == [0]
