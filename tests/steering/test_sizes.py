"""Every method ranks its cells by their distance from doing nothing; ties are broken by it."""

import pandas as pd
import pytest

from cases import contrasts, tiny_lm
from sadi_bench.results.selection import select_cell
from sadi_bench.scoring.bridge import SteeredLM
from sadi_bench.scoring.frame import with_parameters
from sadi_bench.steering.intervention import Cell
from sadi_bench.steering.methods.caa import Caa
from sadi_bench.steering.methods.calibrate import Calibrate
from sadi_bench.steering.methods.hpr import Hpr
from sadi_bench.steering.methods.inferaligner import InferAligner
from sadi_bench.steering.methods.iti import Iti
from sadi_bench.steering.methods.sadi import Sadi
from sadi_bench.steering.methods.tda import Tda


def sizes(cells: tuple[Cell, ...], *names: str) -> dict:
    """Map the named parameters of every steered cell to its size."""
    assert (cells[0].index, cells[0].size) == (0, 0)
    found = {tuple(cell.params[name] for name in names): cell.size for cell in cells[1:]}
    return {key[0] if len(names) == 1 else key: size for key, size in found.items()}


def test_sadis_size_counts_elements_first_and_then_how_far_strength_is_from_1():
    cells = Sadi(top_k=[4, 1], strength=[0.0, 1.5, 1.0, 2.0, 5.0]).grid()
    assert sizes(cells, "top_k", "strength") == {
        (1, 1.0): 0, (1, 1.5): 1, (1, 2.0): 2, (1, 0.0): 3, (1, 5.0): 4,
        (4, 1.0): 0, (4, 1.5): 5, (4, 2.0): 6, (4, 0.0): 7, (4, 5.0): 8,
    }  # fmt: skip


def test_a_change_as_large_is_smaller_where_it_is_positive_though_floats_round():
    assert 1.1 - 1 > 1 - 0.9
    assert sizes(Sadi(top_k=1, strength=[0.9, 1.1]).grid(), "strength") == {1.1: 1, 0.9: 2}
    assert sizes(Sadi(top_k=1, strength=None, delta=[-0.1, 0.1, 0]).grid(), "strength") == {
        1: 0, 1.1: 1, 0.9: 2,
    }  # fmt: skip


@pytest.mark.parametrize("method", [Iti, InferAligner])
def test_a_shift_of_the_best_has_the_size_of_its_alpha(method):
    cells = method(top_k=[1, 3], alpha=[-1, 0, 1, 2]).grid()
    assert sizes(cells, "top_k", "alpha") == {
        (1, 0): 0, (1, 1): 1, (1, -1): 2, (1, 2): 3,
        (3, 0): 0, (3, 1): 4, (3, -1): 5, (3, 2): 6,
    }  # fmt: skip


def test_hprs_size_is_its_share_of_the_angle():
    cells = Hpr(top_k=[3, 1], strength=[1.0, -1.0, 0.0, 0.5]).grid()
    assert sizes(cells, "top_k", "strength") == {
        (1, 0.0): 0, (1, 0.5): 1, (1, 1.0): 2, (1, -1.0): 3,
        (3, 0.0): 0, (3, 0.5): 4, (3, 1.0): 5, (3, -1.0): 6,
    }  # fmt: skip


def test_a_layer_has_no_size():
    cells = Caa(multiplier=[-0.5, 0, 0.5]).grid(2)
    assert sizes(cells, "layer", "multiplier") == {
        (0, 0): 0, (0, 0.5): 1, (0, -0.5): 2, (1, 0): 0, (1, 0.5): 1, (1, -0.5): 2,
    }  # fmt: skip


def test_a_threshold_and_a_scale_have_their_own_size():
    assert sizes(Tda(threshold=[1, 0, 0.5]).grid(), "threshold") == {0: 0, 0.5: 1, 1: 2}
    assert sizes(Calibrate(scale=[-1, 1, 0]).grid(), "scale") == {0: 0, 1: 1, -1: 2}


def test_the_grid_says_the_size_behind_the_cell_and_a_tie_is_broken_by_it():
    lm = tiny_lm("llama")
    steered = SteeredLM(lm, Caa(layer=[2, 1], multiplier=[-1.0, 1.0]).fit(lm, contrasts()))
    rows = pd.DataFrame(
        {"split": "select", "doc_id": 0, "cell": range(5), "acc": 1.0, "finite": True}
    )
    grid = with_parameters(rows, steered)
    assert list(grid.columns[2:6]) == ["cell", "size", "layer", "multiplier"]
    assert grid["size"].tolist() == [0, 2, 1, 2, 1]
    assert select_cell(grid, "select").params == {"layer": 2, "multiplier": 1}
