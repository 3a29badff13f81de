"""Calibration: the constants are the formulas', and lm-eval sees answers with them added."""

import numpy as np
import pytest

from sadi_bench.errors import SettingError
from sadi_bench.scoring.grid import requests_by_doc
from sadi_bench.scoring.harness import SteeredLM, evaluate_cell
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.contrast import encode_pairs
from sadi_bench.steering.methods.calibrate import Calibrate, contextual_bias, prior_bias
from sadi_bench.tasks.pairs import content_free_pairs, contrastive_pairs

TEXTS = ("N/A", "[MASK]", "")


def shares(logprobs: np.ndarray) -> np.ndarray:
    """The share of every answer among the answers, by prompt."""
    raised = np.exp(logprobs)
    return raised / raised.sum(axis=1, keepdims=True)


@pytest.fixture
def asked() -> np.ndarray:
    return np.random.default_rng(0).normal(-6, 2, (7, 3))


def test_the_contextual_constant_divides_by_the_content_free_share(asked):
    content_free = shares(asked).mean(axis=0)
    np.testing.assert_allclose(np.exp(contextual_bias(asked)), 1 / content_free, rtol=1e-12)


@pytest.mark.parametrize("target", [(0.2, 0.5, 0.3), (1 / 3, 1 / 3, 1 / 3), (0.98, 0.01, 0.01)])
def test_the_prior_constant_gives_the_answers_the_wanted_shares(asked, target):
    bias = prior_bias(asked, np.array(target))
    np.testing.assert_allclose(shares(asked + bias).mean(axis=0), target, atol=1e-6)
    assert bias.sum() == pytest.approx(0, abs=1e-9)


def fitted(reviews, speaker, **settings):
    method = Calibrate(**settings)
    pairs = contrastive_pairs(reviews(), seed=0)
    if method.content_free:
        pairs = content_free_pairs(reviews(), pairs, method.content_free, seed=0)
    return method.fit(speaker, encode_pairs(speaker, pairs)[0])


@pytest.mark.parametrize("kind", ["contextual", "prior"])
def test_every_answer_is_scored_with_its_constant(reviews, speaker, kind):
    """Recomputed from an unsteered model's scores of the same prompts."""
    intervention = fitted(reviews, speaker, bias=kind, scale=[0.0, 0.5, 2.0])
    plain, steered = SteeredLM(speaker), SteeredLM(speaker, intervention)
    task = reviews().test
    for lm in (plain, steered):
        evaluate_cell(lm, {"reviews": task}, 0)
    requests = plain._encoded.values()
    reference = [
        [log_probability(speaker, prompt, answer) for answer in intervention.answers]
        for prompt in intervention.prompts
    ]
    found = contextual_bias if kind == "contextual" else prior_bias
    bias = found(np.array(reference), *([intervention.shares] if kind == "prior" else []))
    assert np.ptp(bias) > 0.05
    np.testing.assert_allclose(intervention.tensors()["bias"], bias, atol=1e-4)
    by_answer = dict(zip(intervention.answers, bias, strict=True))
    for prompt, answer in requests:
        (unsteered,), flags, _ = plain._scores[prompt, answer]
        logprobs, greedy, _ = steered._scores[prompt, answer]
        moved = unsteered + by_answer[answer] * np.array([0, 0, 0.5, 2])
        np.testing.assert_allclose(logprobs, moved, atol=1e-4)
        assert logprobs[1] == logprobs[0]
        assert set(greedy) == set(flags)  # what the whole vocabulary says is not touched


def log_probability(lm, prompt, answer) -> float:
    """The unsteered model's, asked for this answer alone."""
    request = (("", ""), list(prompt), list(answer))
    ((found, _),) = SteeredLM(lm)._loglikelihood_tokens([request])
    return found


def test_a_constant_decides_what_lm_eval_counts_as_right(reviews, speaker):
    intervention = fitted(reviews, speaker, scale=[1.0, 1000.0])
    steered, task = SteeredLM(speaker, intervention), reviews().test
    evaluate_cell(steered, {"reviews": task}, 2)
    asked = requests_by_doc(task)
    best = {
        np.argmax([steered.all_cells(i.args)[0][2] for i in instances])
        for instances in asked.values()
    }
    assert len(best) == 1  # so large a constant leaves nothing to the document


def test_content_free_prompts_hold_no_document_and_all_answers(reviews):
    pairs = contrastive_pairs(reviews(), seed=0)
    found = content_free_pairs(reviews(), pairs, TEXTS, seed=0)
    prompts = list(dict.fromkeys(pair.prompt for pair in found))
    assert prompts == [f"Review: {text}\n\nAnswer:" for text in TEXTS]
    answers = {answer for pair in pairs for answer in (pair.positive, pair.negative)}
    for prompt in prompts:
        same = [pair for pair in found if pair.prompt == prompt]
        assert {a for pair in same for a in (pair.positive, pair.negative)} == answers


def test_content_free_prompts_keep_the_demonstrations(reviews):
    task = reviews(fewshot=2)
    found = content_free_pairs(task, contrastive_pairs(task, seed=0), ["N/A"], seed=0)
    again = content_free_pairs(task, contrastive_pairs(task, seed=0), ["N/A"], seed=0)
    assert found == again
    assert found[0].prompt.count("Review: ") == 3
    assert found[0].prompt.endswith("Review: N/A\n\nAnswer:")


def test_choices_that_differ_by_document_are_refused(speaker):
    pairs = [EncodedContrast((5, 6), (i, 7), (i, 8), i) for i in range(20)]
    with pytest.raises(SettingError, match="40 different answers, and at most 26"):
        Calibrate().fit(speaker, pairs)


def test_an_answer_that_no_pair_has_is_refused(reviews, speaker):
    encoded, _ = encode_pairs(speaker, contrastive_pairs(reviews(), seed=0))
    bad, good = (tuple(speaker.encode(text)) for text in (" Bad", " Good"))
    pairs = [EncodedContrast(pair.prompt, bad, good, pair.doc_id) for pair in encoded]
    steered = SteeredLM(speaker, Calibrate().fit(speaker, pairs))
    with pytest.raises(SettingError, match="no constant was learnt for the answer ' Quite good'"):
        evaluate_cell(steered, {"reviews": reviews().test}, 0)


def test_a_contextual_constant_needs_a_text():
    with pytest.raises(SettingError, match=r"method\.content_free=\[\]: .*list at least one"):
        Calibrate(content_free=[])
    assert Calibrate(bias="prior").content_free == ()
