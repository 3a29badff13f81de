"""The grid holds, for every document and cell, what lm-eval computes."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from cases import in_rows, scored_grid
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.tiny_random import tiny_random
from sadi_bench.results.grid import parameter_columns
from sadi_bench.scoring.bridge import SteeredLM, evaluate_cell
from sadi_bench.scoring.frame import METRICS, requests_by_doc
from sadi_bench.steering.intervention import UNSTEERED_MODEL
from slow_loop import matches


@pytest.fixture(scope="module")
def scored(reviews, speaker, steering):
    task, steered = reviews(), SteeredLM(speaker, steering())
    return task, steered, scored_grid(task, steered)


def test_a_row_for_every_split_document_and_cell(scored):
    task, _, grid = scored
    assert len(grid) == (5 + 9) * 5
    assert not grid.duplicated(["split", "doc_id", "cell"]).any()
    for split in ("select", "test"):
        assert set(grid[grid.split == split].doc_id) == set(task.rows(split)["doc_id"])
    cells = grid.drop_duplicates("cell").set_index("cell")[["top_k", "strength"]]
    assert cells.loc[0].isna().all()
    points = [(1, 3.0), (1, -6.0), (4, 3.0), (4, -6.0)]
    assert [tuple(cells.loc[i]) for i in range(1, 5)] == points


def test_means_over_documents_are_lm_evals(scored):
    task, steered, grid = scored
    values = set()
    for split in ("select", "test"):
        for cell in range(5):
            found = evaluate_cell(steered, {"it": getattr(task, split)}, cell)["results"]["it"]
            rows = grid[(grid.split == split) & (grid.cell == cell)]
            for metric in ("acc", "acc_norm", "exact_match"):
                assert rows[metric].mean() == pytest.approx(found[f"{metric},none"], abs=1e-12)
            values.add(rows.acc.mean())
    assert len(values) > 1


def test_decisions_follow_from_the_log_probabilities(scored):
    _, _, grid = scored
    assert set(grid.gold) == {0, 2}
    lengths = np.array([len("Bad"), len("Quite good"), len("Good")])
    for row in grid.itertuples():
        logs = np.asarray(row.choice_logprobs)
        assert row.acc == (logs.argmax() == row.gold)
        assert row.acc_norm == ((logs / lengths).argmax() == row.gold)


def test_exact_match_is_the_greedy_flag_of_the_gold_answer(reviews, speaker, steering):
    """A random model never says an answer by itself, so the flags are drawn here."""
    task, steered = reviews(), SteeredLM(speaker, steering())
    scored_grid(task, steered)
    rng = np.random.default_rng(0)
    for (prompt, answer), (found, number) in steered._scores.items():
        said = np.where(rng.random(5) < 0.5, np.array(answer)[:, None], 0)
        steered._scores[prompt, answer] = saying(found, number, said)
    grid = scored_grid(task, steered)
    for number, instances in requests_by_doc(task.test).items():
        doc = task.test.test_docs()[number]
        rows = grid[(grid.split == "test") & (grid.doc_id == doc["doc_id"])].set_index("cell")
        greedy = steered.all_cells(instances[doc["gold_index"]].args).greedy
        assert rows.exact_match.sort_index().tolist() == greedy.astype(float).tolist()
    for cell in range(5):
        found = evaluate_cell(steered, {"it": task.test}, cell)["results"]["it"]
        rows = grid[(grid.split == "test") & (grid.cell == cell)]
        assert rows.exact_match.mean() == pytest.approx(found["exact_match,none"], abs=1e-12)


def saying(scores, number, said):
    """An answer's scores, and its place in them, with other predicted tokens."""
    predicted = [*scores.predicted[:number], said, *scores.predicted[number + 1 :]]
    predicted = tuple(each.astype(np.int32) for each in predicted)
    return dataclasses.replace(scores, predicted=predicted), number


COLUMNS = ["split", "doc_id", "group", "cell", "size", "top_k", "strength", "acc", "acc_norm",
           "exact_match", "paper_match", "gold", "choice_logprobs", "predicted",
           "finite"]  # fmt: skip


def test_the_grid_keeps_its_columns_and_its_answers_in_a_file(scored, tmp_path):
    grid = scored[2]
    grid.to_parquet(tmp_path / "grid.parquet", index=False)
    again = pd.read_parquet(tmp_path / "grid.parquet")
    assert again.columns.tolist() == COLUMNS
    assert again.attrs["answers"] == ["Bad", "Quite good", "Good"]
    assert again.predicted.dtype == "category"
    assert parameter_columns(again) == ["top_k", "strength"]
    assert "answers" not in scored_grid(differing(scored[0]), scored[1]).attrs


def differing(task):
    return dataclasses.replace(task, answers=None)


def test_paper_match_judges_the_decoded_arg_max_of_the_gold_answer(reviews, speaker, steering):
    """A random model never says an answer by itself, so what it says is drawn here."""
    task, steered = reviews(), SteeredLM(speaker, steering())
    scored_grid(task, steered)
    rng = np.random.default_rng(0)
    for (prompt, answer), (found, number) in steered._scores.items():
        said = [answer, speaker.encode(" bad") + [0] * 9, speaker.encode("GOOD.") + [0] * 9]
        said = np.array([(*said[i], *[0] * 9)[: len(answer)] for i in rng.integers(0, 3, 5)]).T
        steered._scores[prompt, answer] = saying(found, number, said)
    grid = scored_grid(task, steered)
    answers = [task.answers[gold] for gold in grid.gold]
    expected = [matches(*pair) for pair in zip(grid.predicted, answers, strict=True)]
    assert grid.paper_match.tolist() == expected
    assert {" bad", "GOOD.", " Good"} <= set(grid.predicted)
    assert 0 < grid.paper_match.mean() < 1


def test_documents_of_a_group_say_so(reviews, speaker):
    task = reviews(split_group="{{ (id | int) // 2 }}")
    grid = scored_grid(task, SteeredLM(speaker))
    assert set(grid.group) == {str((doc + 1) // 2) for doc in grid.doc_id}
    assert grid.group.nunique() < len(grid)
    alone = scored_grid(reviews(), SteeredLM(speaker))
    assert (alone.group == "#" + alone.doc_id.astype(str)).all()


def test_an_unsteered_model_has_a_grid_of_one_cell(reviews, speaker, scored):
    grid = scored_grid(reviews(), SteeredLM(speaker, UNSTEERED_MODEL))
    assert set(grid.cell) == {0}
    of_cell_0 = scored[2][scored[2].cell == 0]
    assert grid[list(METRICS)].to_numpy().tolist() == of_cell_0[list(METRICS)].to_numpy().tolist()


@pytest.fixture(scope="module")
def overflowing(reviews, steering):
    """Score a cell that leaves float16's range on every document."""
    network, tokenizer = tiny_random(0)
    half = in_rows(LanguageModel("tiny-random", network.to(torch.float16), tokenizer))
    steered = SteeredLM(half, steering(top_k=[4], strength=[1e7], score="abs"))
    task = reviews()
    return task, steered, scored_grid(task, steered)


def test_a_cell_out_of_the_number_range_scores_nothing_and_says_so(overflowing):
    _, _, grid = overflowing
    steered = grid[grid.cell == 1]
    assert not steered.finite.any()
    assert (steered[list(METRICS)] == 0).all(axis=None)
    assert set(steered.predicted) == {""}
    assert all(np.isneginf(row).all() for row in steered.choice_logprobs)
    assert grid[grid.cell == 0].finite.all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # lm-eval's softmax
def test_lm_eval_would_credit_a_cell_out_of_the_number_range_with_luck(overflowing):
    """Its arg-max of nothing but -inf is the first answer: why such a cell gets no entry."""
    task, steered, _ = overflowing
    found = evaluate_cell(steered, {"it": task.test}, 1)["results"]["it"]
    first_is_right = np.mean([doc["gold_index"] == 0 for doc in task.test.test_docs()])
    assert first_is_right > 0
    assert found["acc,none"] == pytest.approx(first_is_right)
