"""Calibration: the constants are the formulas', and lm-eval sees answers with them added."""

import numpy as np
import pytest
import torch

from cases import scored_grid
from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.tiny_random import tiny_random
from sadi_bench.scoring.bridge import SteeredLM, evaluate_cell
from sadi_bench.scoring.frame import requests_by_doc
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


def pairs_of(reviews, speaker, kind="contextual") -> list[EncodedContrast]:
    pairs = contrastive_pairs(reviews(), seed=0)
    if kind == "contextual":
        pairs = content_free_pairs(reviews(), pairs, TEXTS, seed=0)
    return encode_pairs(speaker, pairs)[0]


@pytest.mark.parametrize("kind", ["contextual", "prior"])
def test_every_answer_is_scored_with_its_constant(reviews, speaker, kind):
    """Recomputed from an unsteered model's scores of the same prompts."""
    encoded = pairs_of(reviews, speaker, kind)
    intervention = Calibrate(bias=kind, scale=[0.0, 0.5, 2.0]).fit(speaker, encoded)
    plain, steered = SteeredLM(speaker), SteeredLM(speaker, intervention)
    task = reviews().test
    for lm in (plain, steered):
        evaluate_cell(lm, {"reviews": task}, 0)
    reference = np.array([
        [log_probability(speaker, prompt, answer) for answer in intervention.answers]
        for prompt in dict.fromkeys(pair.prompt for pair in encoded)
    ])  # fmt: skip
    bias = contextual_bias(reference)
    if kind == "prior":
        right = [1 + sum(p.positive == a for p in encoded) for a in intervention.answers]
        bias = prior_bias(reference, np.array(right) / sum(right))
    assert np.ptp(bias) > 0.05
    np.testing.assert_allclose(intervention.tensors()["bias"], bias, atol=1e-4)
    by_answer = dict(zip(intervention.answers, bias, strict=True))
    for prompt, answer in plain._encoded.values():
        (unsteered,) = plain._of((prompt, answer)).logprobs
        found = steered._of((prompt, answer))
        moved = unsteered + by_answer[answer] * np.array([0, 0, 0.5, 2])
        np.testing.assert_allclose(found.logprobs, moved, atol=1e-4)
        assert found.logprobs[1] == found.logprobs[0]
        assert (found.predicted[:, 1] == found.predicted[:, 0]).all()


def log_probability(lm, prompt, answer) -> float:
    """The unsteered model's, asked for this answer alone."""
    request = (("", ""), list(prompt), list(answer))
    ((found, _),) = SteeredLM(lm)._loglikelihood_tokens([request])
    return found


def test_a_constant_decides_what_lm_eval_counts_as_right(reviews, speaker):
    intervention = Calibrate(scale=[1.0, 1000.0]).fit(speaker, pairs_of(reviews, speaker))
    steered, task = SteeredLM(speaker, intervention), reviews().test
    evaluate_cell(steered, {"reviews": task}, 2)
    asked = requests_by_doc(task)
    best = {
        np.argmax([steered.all_cells(i.args).logprobs[2] for i in instances])
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
    assert Calibrate(bias="prior").blank_texts() == ()


def test_a_constant_makes_the_paper_count_an_answer_too(reviews, speaker):
    """A random model says no answer by itself; with so large a constant it says always the same."""

    def letters():
        return reviews(doc_to_choice=["B", "Q", "G"], target_delimiter="")

    intervention = Calibrate(scale=[0.0, 1000.0]).fit(speaker, pairs_of(letters, speaker))
    grid = scored_grid(letters(), SteeredLM(speaker, intervention)).query("split == 'test'")
    by_cell = {cell: rows for cell, rows in grid.groupby("cell")}
    assert set(by_cell[0].paper_match) == {0}
    assert by_cell[1].predicted.tolist() == by_cell[0].predicted.tolist()
    assert 0 < by_cell[2].acc.mean() < 1
    assert by_cell[2].paper_match.tolist() == by_cell[2].acc.tolist()


def test_the_constants_do_not_depend_on_how_prompts_share_passes(reviews, speaker, monkeypatch):
    pairs = pairs_of(reviews, speaker, "prior")
    together = Calibrate(bias="prior").fit(speaker, pairs)
    monkeypatch.setattr("sadi_bench.steering.activations.TOKENS_PER_PASS", 1)
    alone = Calibrate(bias="prior").fit(speaker, pairs)
    np.testing.assert_allclose(alone.bias, together.bias, atol=1e-5)


@pytest.mark.parametrize("kind", ["contextual", "prior"])
def test_a_prompt_that_overflows_is_refused_and_makes_no_constants(reviews, kind):
    network, tokenizer = tiny_random(0)
    half = LanguageModel("half", network.to(torch.float16), tokenizer)
    pairs = pairs_of(reviews, half, kind)
    Calibrate(bias=kind).fit(half, pairs)
    with torch.no_grad():  # a letter that one of the prompts alone has
        network.get_input_embeddings().weight[tokenizer.encode("~")[0]] = torch.inf
    odd = EncodedContrast((*tokenizer.encode("~"), 5), pairs[0].positive, pairs[0].negative, 99)
    with pytest.raises(
        SettingError, match=r"model\.dtype=float16: .*choose model.dtype=float32"
    ) as caught:
        Calibrate(bias=kind).fit(half, [*pairs, odd])
    assert "\n" not in str(caught.value)
