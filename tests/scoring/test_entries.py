"""A cell's entry in lm-eval's schema equals what lm-eval itself says of that cell."""

import pytest

from cases import scored_grid
from sadi_bench.scoring.bridge import SteeredLM, evaluate_cell
from sadi_bench.scoring.entries import entry_of
from sadi_bench.scoring.frame import named_splits


@pytest.fixture(scope="module")
def scored(reviews, speaker, steering):
    task = reviews()
    steered = SteeredLM(speaker, steering(top_k=[4, 12], strength=[80.0, -90.0]))
    evaluated = evaluate_cell(steered, named_splits(task), 0, task.seed)
    return task, steered, scored_grid(task, steered), evaluated


@pytest.mark.parametrize("cell", [0, 1, 4])
def test_it_is_lm_evals_own(scored, cell):
    task, steered, frame, evaluated = scored
    ours = entry_of(task, evaluated, frame, cell, "_x")
    theirs = evaluate_cell(steered, {task.name: task.test}, cell, task.seed)
    found, expected = ours["results"][f"{task.name}_x"], theirs["results"][task.name]
    assert set(found) == set(expected)
    for key, value in expected.items():
        if isinstance(value, float):
            assert found[key] == pytest.approx(value, abs=1e-12)
    assert {key for key in ours if task.name in theirs[key]} == set(ours)


def test_a_cells_entry_follows_its_own_rows(scored):
    task, _, frame, evaluated = scored
    rows = (frame["split"] == "test") & (frame["cell"] == 1)
    turned = frame.assign(acc=frame["acc"].where(~rows, 1 - frame["acc"]))
    entry = entry_of(task, evaluated, turned, 1, "_x")["results"][f"{task.name}_x"]
    assert entry["acc,none"] == pytest.approx(1 - frame.loc[rows, "acc"].mean())
    other = entry_of(task, evaluated, turned, 4, "_x")["results"][f"{task.name}_x"]
    cell_4 = frame[(frame["split"] == "test") & (frame["cell"] == 4)]
    assert other["acc,none"] == pytest.approx(cell_4["acc"].mean())
