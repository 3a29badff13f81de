"""Two finished runs, or two cells, on the documents they share."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from results.conftest import grid_of
from sadi_bench.errors import SettingError
from sadi_bench.results.compare import compare, compare_table, side_of
from sadi_bench.results.report import report
from sadi_bench.results.run_dir import writing_run
from terminal import command

FAST = {"n_resamples": 199}


def made_grid(seed: int, n_test: int = 60, first_doc: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    grid = grid_of({"select": rng.integers(0, 2, (30, 7)), "test": np.zeros((n_test, 7), int)})
    grid["gold"] = grid["doc_id"] % 2
    odds = rng.normal(2 * grid["gold"] - 1, 2)
    grid["choice_logprobs"] = [[-o / 2, o / 2] for o in odds]
    grid["acc"] = ((odds > 0) == grid["gold"]).astype(float)
    grid["doc_id"] += first_doc * (grid["split"] == "test")
    grid.attrs["answers"] = ["no", "yes"]
    return grid


def write(folder, name: str, grid: pd.DataFrame, task: str = "boolq") -> None:
    ours = {"task": task, "model": "tiny", "method": "sadi-head", **report(grid, **FAST)}
    with writing_run(folder, name) as run_dir:
        run_dir.write_grid([grid])
        run_dir.finish({"sadi_bench": ours})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write(folder, "one", made_grid(1))
    write(folder, "later", made_grid(2, first_doc=20))
    write(folder, "elsewhere", made_grid(3), task="copa")
    draws = made_grid(4)
    write(folder, "draws", draws.assign(draw=((draws["cell"] + 1) // 2).where(draws["cell"] > 0)))
    moved = made_grid(5).assign(gold=0)
    write(folder, "moved", moved)
    return folder


def sides(folder, *names: str) -> tuple:
    return tuple(side_of(name, folder) for name in names)


def values(side, metric: str = "acc") -> pd.Series:
    grid = side.run.grid
    test = grid[(grid["split"] == "test") & grid["cell"].isin(side.cells)]
    return test.groupby("doc_id")[metric].mean()


def test_two_runs_are_compared_on_the_documents_they_share(folder):
    one, later = sides(folder, "one", "later")
    found = compare(one, later, **FAST)
    before, after = values(one), values(later)
    shared = before.index.intersection(after.index)
    assert len(shared) == found["acc"]["n"] == 40
    assert found["acc"]["before"] == pytest.approx(before[shared].mean())
    assert found["acc"]["after"] == pytest.approx(after[shared].mean())
    gained = int((after[shared] > before[shared]).sum())
    assert (found["acc"]["gained"], found["acc"]["test"]) == (gained, "mcnemar_exact")


def test_an_auc_is_compared_on_the_shared_documents_as_scikit_learn_computes_it(folder):
    one, later = sides(folder, "one", "later")
    shared = values(one).index.intersection(values(later).index)

    def auc(side) -> float:
        grid = side.run.grid
        own = grid[(grid["split"] == "test") & (grid["cell"] == side.cells[0])]
        own = own.set_index("doc_id").loc[shared]
        odds = [b - a for a, b in own["choice_logprobs"]]
        return roc_auc_score(own["gold"], odds)

    found = compare(one, later, **FAST)["auc"]
    assert (found["before"], found["after"]) == pytest.approx((auc(one), auc(later)))
    low, high = found["difference_ci95"]
    assert low < found["difference"] < high


def test_a_run_compared_with_itself_differs_in_nothing(folder):
    found = compare(*sides(folder, "one", "one"), **FAST)
    assert {row["difference"] for row in found.values()} == {0.0}
    assert found["acc"]["p_value"] == 1.0


def test_a_cell_is_named_by_number_or_by_row(folder):
    assert side_of("one:3", folder).cells == (3,)
    assert side_of("one:unsteered", folder).cells == (0,)
    heldout = side_of("one", folder)
    assert heldout.cells == (heldout.run.result["sadi_bench"]["protocols"]["heldout"]["cell"],)
    assert side_of(str(folder / "one") + ":3").cells == (3,)


def test_beside_random_draws_the_other_side_takes_its_place_among_them(folder):
    found = compare(*sides(folder, "draws", "one"), **FAST)["acc"]
    draws = side_of("draws", folder)
    each = [values(side_of(f"draws:{cell}", folder)).mean() for cell in draws.cells]
    as_good = sum(value >= found["after"] - 1e-12 for value in each)
    assert len(each) == 3
    assert found["p_random"] == (1 + as_good) / 4
    assert found["before"] == pytest.approx(np.mean(each))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("one", "elsewhere"), "share no test documents"),
        (("one", "moved"), "other right answers"),
        (("one", "one:9"), "no cell 9; the run has cells 0 to 6"),
        (("one", "one:crossfit"), "no such row; choose a cell number or unsteered, heldout"),
        (("one", "nowhere"), "no finished run"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(folder, names, words):
    with pytest.raises(SettingError, match=words):
        compare(*sides(folder, *names), **FAST)


def test_the_command_prints_a_table_that_fits(folder):
    done = command("compare", "draws", "one:2", f"runs_dir={folder}")
    assert done.code == 0
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("A: draws:heldout (boolq, tiny, sadi-head)")
    assert "p, random" in done.out
    assert command("compare", "one", f"runs_dir={folder}").code == 2
    assert "compare RUN_A RUN_B" in command("compare").err
    one, draws = sides(folder, "one", "draws")
    assert json.dumps(compare(one, draws, **FAST))  # plain values
    assert "auc" in compare_table(one, draws, compare(one, draws, **FAST))
