"""Cells whose answers agree are asked once, and get what each would get alone."""

from collections import Counter

import numpy as np
import pytest

from cases import scored_grid
from sadi_bench.scoring.answers import ChoiceScores
from sadi_bench.scoring.bridge import SteeredLM
from sadi_bench.scoring.frame import METRICS, requests_by_doc
from sadi_bench.scoring.outcomes import computes_by_choices
from slow_loop import matches

# Of the letters of Bad, Quite good and Good: equal by letter, or as they are, or both.
TIED = np.array([-3.0, -10.0, -4.0, -6.0, -20.0, -8.0, -5.0], dtype=np.float32)


@pytest.fixture
def drawn(reviews, speaker, steering):
    """Score a task with drawn numbers: ties, greedy flags, and cells that overflow."""
    task = reviews(n_test=20)
    steered = SteeredLM(speaker, steering(top_k=[1, 2, 3, 4], strength=[*map(float, range(1, 9))]))
    scored_grid(task, steered)
    rng, n_cells = np.random.default_rng(0), len(steered.intervention.cells)
    said = [speaker.encode(text) + [0] * 9 for text in (" Bad", "GOOD.", "no")]
    for scores, number in {id(found[0]): found for found in steered._scores.values()}.values():
        assert number == len(scores.answers) - 1
        finite = rng.random(n_cells) < 0.9
        logprobs = rng.choice(TIED, size=(len(scores.answers), n_cells))
        predicted = []
        for answer in scores.answers:
            texts = np.array([(*text, *[0] * 9)[: len(answer)] for text in (answer, *said)])
            predicted.append(texts[rng.integers(0, len(texts), n_cells)].T.astype(np.int32))
        new = ChoiceScores(scores.answers, logprobs, tuple(predicted), finite)
        for key, (old, place) in steered._scores.items():
            if old is scores:
                steered._scores[key] = new, place
    return task, steered


def cell_by_cell(task, steered) -> dict:
    """Ask lm-eval about every document and cell by itself: the metrics by place."""
    found = {}
    for name, split in (("select", task.select), ("test", task.test)):
        for number, instances in requests_by_doc(split).items():
            doc = split.test_docs()[number]
            answers = [steered.all_cells(instance.args) for instance in instances]
            for cell in range(len(steered.intervention.cells)):
                metrics = dict.fromkeys(METRICS, 0.0)
                if answers[0].finite[cell]:
                    results = [(float(a.logprobs[cell]), bool(a.greedy[cell])) for a in answers]
                    metrics = dict(split.process_results(doc, results))
                    right = answers[doc["gold_index"]].predicted[:, cell]
                    text = steered.tokenizer.decode(right.tolist(), skip_special_tokens=True)
                    metrics["paper_match"] = matches(text, task.answers[doc["gold_index"]])
                found[name, doc["doc_id"], cell] = [float(metrics[metric]) for metric in METRICS]
    return found


def rows_of(grid) -> dict:
    keys = zip(grid.split, grid.doc_id, grid.cell, strict=True)
    return dict(zip(keys, grid[list(METRICS)].to_numpy().tolist(), strict=True))


def counted(split, calls: Counter) -> None:
    """Count what lm-eval is asked of a split."""
    own = split.process_results

    def process_results(doc, results):
        calls[doc["doc_id"]] += 1
        return own(doc, results)

    split.process_results = process_results


def test_cells_that_agree_get_what_lm_eval_says_of_each(drawn):
    task, steered = drawn
    expected = cell_by_cell(task, steered)
    calls = Counter()
    for split in (task.select, task.test):
        counted(split, calls)
    grid = scored_grid(task, steered)
    assert rows_of(grid) == expected
    distinct = {tuple(row) for row in expected.values()}
    assert len(distinct) > 8
    assert len(grid) == 25 * 33
    assert 25 < calls.total() < 0.8 * grid.finite.sum()


def test_a_task_that_computes_its_metrics_itself_is_asked_in_every_cell(drawn):
    task, steered = drawn
    for split in (task.select, task.test):
        assert computes_by_choices(split, METRICS)
        split.config.process_results = own_metrics
        assert not computes_by_choices(split, METRICS)
    grid = scored_grid(task, steered)
    assert rows_of(grid) == cell_by_cell(task, steered)
    assert grid.acc_norm.nunique() > 20


def own_metrics(doc, results):
    numbers = [logprob for logprob, _ in results]
    return {"acc": numbers[0], "acc_norm": sum(numbers) * doc["doc_id"], "exact_match": 1}


def test_other_metrics_than_the_choices_decide_are_asked_in_every_cell(reviews):
    task = reviews()
    assert computes_by_choices(task.test, ["acc", "acc_norm", "exact_match", "paper_match"])
    assert not computes_by_choices(task.test, ["acc", "brier_score"])
