"""A run's headline numbers, computed again from grid.parquet with scipy and scikit-learn alone.

Nothing of the package is used but the command that makes the run.
"""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from terminal import command
from text_runs import stand_alone


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recomputed")
    rows = [
        {"text": f"the film {i * 7919 % 613} was {('fine', 'poor', 'long')[i % 3]}",
         "label": int(i % 3 == 0 or i % 7 == 0)}
        for i in range(300)
    ]  # fmt: skip
    (folder / "data").mkdir()
    for name, some in (("train", rows[:150]), ("test", rows[150:])):
        text = "".join(json.dumps(row) + "\n" for row in some)
        (folder / "data" / f"{name}.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="module")
def made(folder):
    with pytest.MonkeyPatch.context() as patch:
        stand_alone(folder, patch)
        done = command(
            "task=sst2", "model=tiny-random", "task.data_dir=data", "task.n_pairs=20",
            "task.n_select=70", "task.n_test=90", "method.top_k=[2,6]", "method.strength=[5,40]",
            "task.files.reader=jsonl", "task.files.identify=[train.jsonl]",
            "task.files.test=[test.jsonl]", "runs_dir=runs",
        )  # fmt: skip
    assert done.code == 0, done.err
    run = folder / done.path
    return pd.read_parquet(run / "grid.parquet"), json.loads((run / "result.json").read_text())


def part(grid: pd.DataFrame, split: str, cell: int) -> pd.DataFrame:
    return grid[(grid["split"] == split) & (grid["cell"] == cell)].sort_values("doc_id")


def odds_of(frame: pd.DataFrame) -> np.ndarray:
    return np.array([second - first for first, second in frame["choice_logprobs"]])


def biased_accuracy(select: pd.DataFrame, test: pd.DataFrame) -> float:
    def loss(parameters):
        odds = parameters[0] * odds_of(select) + parameters[1]
        logits = np.stack([np.zeros_like(odds), odds], axis=1)
        return -log_softmax(logits, axis=1)[np.arange(len(odds)), select["gold"]].mean()

    found = minimize(loss, [0.5, 0.0], method="SLSQP", bounds=[(0, None), (None, None)],
                     options={"ftol": 1e-14, "maxiter": 1000})  # fmt: skip
    scale, constant = found.x
    return ((scale * odds_of(test) + constant > 0) == test["gold"]).mean()


@pytest.mark.parametrize("row", ["unsteered", "heldout", "heldout_abstain", "oracle"])
def test_every_headline_number_of_a_row_follows_from_the_grid(made, row):
    grid, result = made
    found = result["sadi_bench"]["protocols"][row]
    test, select = (part(grid, split, found["cell"]) for split in ("test", "select"))
    metrics = found["metrics"]
    acc = (odds_of(test) > 0) == test["gold"]
    assert metrics["acc"]["value"] == pytest.approx(acc.mean())
    assert metrics["acc"]["ci95"] == pytest.approx(
        list(binomtest(int(acc.sum()), len(acc)).proportion_ci(method="wilson"))
    )
    assert metrics["paper_match"]["value"] == pytest.approx(test["paper_match"].mean())
    assert metrics["auc"]["value"] == pytest.approx(roc_auc_score(test["gold"], odds_of(test)))
    assert metrics["acc_biased"]["value"] == pytest.approx(biased_accuracy(select, test))
    assert metrics["acc"]["n"] == len(test) == 90


def test_paper_match_follows_from_the_text_that_it_judged(made):
    grid, _ = made
    answers = grid.attrs["answers"]
    assert answers == ["Negative", "Positive"]
    for text, gold, match in grid[["predicted", "gold", "paper_match"]].itertuples(index=False):
        plain = text.strip()
        for mark in (".</s>", ".\n", ".", ";", "!", ",", "?", "\n", "</s>", "<pad>"):
            plain = plain.replace(mark, "")
        assert match == (plain.lower() == answers[gold].strip().lower())


def test_the_held_out_and_the_oracle_cell_are_the_best_of_their_split(made):
    grid, result = made
    for row, split in (("heldout", "select"), ("oracle", "test")):
        steered = grid[(grid["split"] == split) & (grid["cell"] > 0)]
        means = steered.groupby(["size", "cell"])["acc"].mean().reset_index()
        best = means.sort_values(["acc", "size", "cell"], ascending=[False, True, True]).iloc[0]
        assert result["sadi_bench"]["protocols"][row]["cell"] == best["cell"]


def test_the_closing_sentence_holds_these_numbers(made):
    grid, result = made
    ours = result["sadi_bench"]
    cell = ours["protocols"]["heldout"]["cell"]
    before, after = part(grid, "test", 0), part(grid, "test", cell)
    changed = ((odds_of(before) > 0) != (odds_of(after) > 0)).mean()
    sentence = ours["diagnosis"]["sentence"]
    if changed == 0:
        assert sentence == "Steering changed no answer."
        return
    assert f"changed {100 * changed:.1f} % of the answers" in sentence
    areas = [roc_auc_score(frame["gold"], odds_of(frame)) for frame in (after, before)]
    assert f"(AUC {areas[0]:.3f} against {areas[1]:.3f})" in sentence
    alone = biased_accuracy(part(grid, "select", 0), before)
    assert f"acc {100 * alone:.1f} % without steering" in sentence


def test_shares_of_answers_are_counted(made):
    grid, result = made
    answers = result["sadi_bench"]["answers"]
    test = part(grid, "test", 0)
    assert answers["gold"] == pytest.approx([(test["gold"] == i).mean() for i in (0, 1)])
    yes = (odds_of(test) > 0).mean()
    assert answers["shares"]["unsteered"] == pytest.approx([1 - yes, yes])
