"""The closing sentence, branch by branch, on made-up numbers and on made-up grids."""

import numpy as np
import pandas as pd
import pytest

from sadi_bench.results.answer_shares import answer_report
from sadi_bench.results.diagnosis import diagnosis
from sadi_bench.results.protocols import Protocols
from sadi_bench.results.report import report
from sadi_bench.results.scored import Scored

FAST = {"n_resamples": 199}


def rows(curve=(0.0, 0.1), name: str = "auc", row: str = "heldout") -> dict:
    steered = {
        name: {"value": 0.655, "difference_ci95": list(curve) if curve else None},
        "acc": {"value": 0.538},
        "acc_biased": {"value": 0.6},
    }
    plain = {name: {"value": 0.659}, "acc": {"value": 0.532}, "acc_biased": {"value": 0.63}}
    return {"unsteered": {"metrics": plain}, row: {"metrics": steered}}


def sentence(changed: float = 0.14, curve=(-0.01, 0.01), constant=(0.02, 0.1), **kinds) -> str:
    row = kinds.get("row", "heldout")
    against = constant and {"difference": 0.05, "difference_ci95": list(constant)}
    return diagnosis(rows(curve, **kinds), {"changed": {row: changed}}, against)["sentence"]


def test_steering_that_moves_a_bias_is_said_to_do_less_than_a_constant():
    assert sentence() == (
        "Steering changed 14.0 % of the answers; it separates right from wrong no better than the "
        "unsteered model (AUC 0.655 against 0.659), and one constant fitted on the select split "
        "does more (acc 63.0 % without steering, 53.8 % with it)."
    )


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((0.01, 0.05), "separates right from wrong better than the"),
        ((-0.01, 0.05), "separates right from wrong no better than the"),
        ((-0.05, -0.01), "separates right from wrong worse than the"),
        ((0.0, 0.05), "no better than"),
    ],
)
def test_the_interval_of_the_auc_difference_decides_how_steering_separates(interval, words):
    assert words in sentence(curve=interval)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((0.01, 0.05), "one constant fitted on the select split does more"),
        ((-0.01, 0.05), "one constant fitted on the select split does as much"),
        ((-0.05, -0.01), "one constant fitted on the select split does less"),
    ],
)
def test_the_paired_difference_decides_what_a_constant_does(interval, words):
    assert words in sentence(constant=interval)


def test_what_cannot_be_said_is_left_out():
    assert sentence(changed=0.0) == "Steering changed no answer."
    assert sentence(constant=None).endswith("the unsteered model (AUC 0.655 against 0.659).")
    assert sentence(curve=None).startswith("Steering changed 14.0 % of the answers; one constant")
    assert sentence(curve=None, constant=None) == "Steering changed 14.0 % of the answers."
    assert "AUC 0.655" in sentence(name="auc_pooled", constant=None)
    assert "AUC 0.655" in sentence(row="oracle")


def test_without_steering_or_without_answers_there_is_no_sentence():
    alone = {"unsteered": rows()["unsteered"], "heldout": None, "oracle": None}
    assert diagnosis(alone, {"changed": {}}, None) is None
    assert diagnosis(rows(), None, None) is None
    assert diagnosis(rows(), {"changed": {}}, None) is None  # a document overflowed


def grid(logprobs: dict[int, np.ndarray], gold: np.ndarray, n_select: int) -> pd.DataFrame:
    """One cell a number: log-probabilities [docs 2] of two answers, the first ones to select on."""
    parts = []
    for cell, values in logprobs.items():
        docs = np.arange(len(gold))
        acc = (values.argmax(axis=1) == gold).astype(float)
        parts.append(
            pd.DataFrame(
                {
                    "split": np.where(docs < n_select, "select", "test"),
                    "doc_id": docs,
                    "group": [f"#{i}" for i in docs],
                    "cell": cell,
                    "size": cell,
                    "strength": np.nan if cell == 0 else float(cell),
                    **dict.fromkeys(("acc", "acc_norm", "exact_match", "paper_match"), acc),
                    "gold": gold,
                    "choice_logprobs": list(values),
                    "finite": True,
                }
            )
        )
    found = pd.concat(parts, ignore_index=True)
    found.attrs["answers"] = ["no", "yes"]
    return found


def biased_model(seed: int = 0, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """A model that knows something and says yes to everybody."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 2, n)
    odds = rng.normal(np.where(gold == 1, 0.8, -0.8), 1.5) + 20
    return np.stack([-odds / 2, odds / 2], axis=1) - 25, gold


def test_a_shift_in_disguise_is_called_one():
    plain, gold = biased_model()
    made = report(grid({0: plain, 1: plain + [19, 0]}, gold, 150), **FAST)
    found = made["diagnosis"]
    assert (found["separates"], found["constant"]) == ("within", "within")
    assert made["protocols"]["heldout"]["metrics"]["acc"]["difference"] > 0.1  # yet acc rose
    assert "one constant fitted on the select split does as much" in found["sentence"]
    assert made["answers"]["constant"] == {"unsteered": "yes"}


def test_steering_that_separates_is_called_better():
    plain, gold = biased_model()
    better = plain.copy()
    better[:, 0] += np.where(gold == 0, 22, 16)
    made = report(grid({0: plain, 1: better}, gold, 150), **FAST)
    assert (made["diagnosis"]["separates"], made["diagnosis"]["constant"]) == ("above", "below")
    assert made["diagnosis"]["cells_below"] == 0


def test_noise_is_called_worse():
    plain, gold = biased_model()
    noise = np.random.default_rng(1).normal(0, 9, plain.shape) - 25
    made = report(grid({0: plain, 1: noise, 2: noise[::-1]}, gold, 150), **FAST)
    assert (made["diagnosis"]["separates"], made["diagnosis"]["constant"]) == ("below", "above")
    assert (made["diagnosis"]["cells_below"], made["diagnosis"]["cells"]) == (2, 2)


def test_shares_changes_and_constants_are_counted_by_hand():
    gold = np.array([0, 1, 1, 1, 0, 1])
    zero = np.array([[0.0, 1.0]] * 6)
    one = zero.copy()
    one[4] = [1.0, 0.0]
    scored = Scored(grid({0: zero, 1: one}, gold, 2), ["acc"])
    chosen = Protocols(scored, "acc", 0, 99, False)
    found = answer_report(scored, {k: chosen.parts[k] for k in ("unsteered", "heldout")})
    assert found["gold"] == [0.25, 0.75]
    assert found["shares"] == {"unsteered": [0.0, 1.0], "heldout": [0.25, 0.75]}
    assert found["changed"] == {"heldout": 0.25}
    assert found["constant"] == {"unsteered": "yes"}
