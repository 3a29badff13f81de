"""Every log-probability and decision of the engine, held against one sequence at a time."""

import dataclasses
from itertools import product

import numpy as np
import pytest
import torch

from cases import contrasts, in_rows, pair_rows, plain_logits, requests_for, tiny_lm
from sadi_bench.models.families import blocks_of
from sadi_bench.scoring.choices import score_choices
from sadi_bench.steering.methods.calibrate import Calibrate, ChoiceBias
from sadi_bench.steering.methods.sadi import Sadi
from sadi_bench.tasks.metrics import paper_match
from slow_loop import (
    matches,
    mean_difference,
    rank_elements,
    score_calibrated,
    score_document,
)

TOLERANCE = 5e-5
SITES = [("head", "mlp_out"), ("neuron", "mlp_out"), ("hidden", "mlp_out"), ("hidden", "residual")]
WAYS = list(product(("clean", "inflight"), ("last_prompt", "from_last_prompt")))
TWO_WAYS = [("clean", "last_prompt"), ("inflight", "from_last_prompt")]


def compare(lm, site, hidden_site, patch, reach, vector="adaptive", requests=None):
    """Score all cells both ways; return how far steering moved the log-probabilities."""
    pairs, requests = contrasts(), requests or requests_for(lm.name)
    method = Sadi(site=site, hidden_site=hidden_site, patch=patch, reach=reach, vector=vector,
                  top_k=[1, 6], strength=[-3.0], score="abs")  # fmt: skip
    intervention = method.fit(lm, pairs)
    ranked = rank_elements(lm.network, pair_rows(pairs), site, "abs", hidden_site)
    assert [e[:2] for e in intervention.elements()[:6]] == [e[:2] for e in ranked[:6]]
    fixed = None
    if vector != "adaptive":
        fixed = mean_difference(lm.network, pair_rows(pairs), site, hidden_site)
    moved = 0.0
    found = score_choices(lm, requests, intervention)
    for request, scores in zip(requests, found, strict=True):
        assert scores.finite.all()
        for cell in intervention.cells[1:]:
            top = [e[:2] for e in ranked[: cell.params["top_k"]]]
            logprobs, greedy, predicted = score_document(
                lm.network, request.prompt, request.answers, top, cell.params["strength"],
                site, patch, hidden_site, reach, fixed, vector == "fixed_norm",
            )  # fmt: skip
            np.testing.assert_allclose(
                scores.logprobs[:, cell.index], logprobs, atol=TOLERANCE, rtol=0
            )
            assert scores.greedy[:, cell.index].tolist() == greedy
            assert predicted_in(scores, cell.index) == predicted
            moved = max(moved, np.abs(scores.logprobs[:, cell.index] - scores.logprobs[:, 0]).max())
    return moved


def predicted_in(scores, cell):
    return [tokens[:, cell].tolist() for tokens in scores.predicted]


@pytest.mark.parametrize(("site", "hidden_site"), SITES)
def test_all_patches_and_reaches_equal_the_slow_loop(lm, site, hidden_site):
    for patch, reach in WAYS:
        assert compare(lm, site, hidden_site, patch, reach) > 0.01, (patch, reach)


@pytest.mark.parametrize(("site", "hidden_site"), SITES)
def test_answers_of_one_token_equal_the_slow_loop(lm, site, hidden_site):
    requests = one_token_requests(lm.name)
    for patch in ("clean", "inflight"):
        assert compare(lm, site, hidden_site, patch, "last_prompt", requests=requests) > 0.01


@pytest.mark.parametrize("site", ["head", "neuron", "hidden"])
def test_what_feeds_an_overwritten_site_runs_for_one_copy(lm, site):
    """And for all copies where the values flow on, or where longer answers attend to them."""
    point = getattr(lm.family, site)
    if point.producer is None:
        assert (lm.name, site) == ("phi3", "neuron")  # gate and up are one projection
        return
    short, long = one_token_requests(lm.name), requests_for(lm.name)
    ways = {"clean": short, "inflight": short, "clean, long": long}
    seen = {}
    for way, requests in ways.items():
        method = Sadi(site=site, patch=way.partition(",")[0], top_k=lm.num_layers, strength=[2, 3])
        intervention = method.fit(lm, contrasts())
        seen[way] = rows_into(lm, point.producer, requests, intervention)
    assert seen["clean"] == len(short)
    assert seen["inflight"] == 3 * len(short)
    assert seen["clean, long"] > 3 * len(short)


def one_token_requests(name):
    return tuple(
        dataclasses.replace(r, answers=tuple(a for a in r.answers if len(a) == 1))
        for r in requests_for(name)
    )


def rows_into(lm, producer, requests, intervention):
    """Count the positions that the last block's producer is given in the pass of the cells."""
    counts = []

    def count(_module, args, kwargs, _output):
        hidden = args[0] if args else kwargs["hidden_states"]
        counts.append(hidden.shape[:-1].numel())

    module = blocks_of(lm.network, lm.family)[-1].get_submodule(producer)
    handle = module.register_forward_hook(count, with_kwargs=True)
    score_choices(lm, requests, intervention)
    handle.remove()
    return counts[-1]


@pytest.mark.parametrize("name", ["llama", "gemma3", "bloom"])
@pytest.mark.parametrize("site", ["head", "hidden"])
@pytest.mark.parametrize("vector", ["fixed", "fixed_norm"])
def test_a_fixed_vector_equals_the_slow_loop(name, site, vector):
    for patch, reach in TWO_WAYS:
        assert compare(tiny_lm(name), site, "mlp_out", patch, reach, vector) > 0.01


@pytest.mark.parametrize("name", ["llama", "opt", "phi"])
@pytest.mark.parametrize("site", ["head", "neuron", "hidden"])
def test_branches_in_rows_equal_the_slow_loop(name, site):
    for patch, reach in TWO_WAYS:
        assert compare(in_rows(tiny_lm(name)), site, "mlp_out", patch, reach) > 0.01


def test_the_unsteered_cell_equals_a_plain_forward(lm):
    requests = requests_for(lm.name)
    flags = []
    for request, scores in zip(requests, score_choices(lm, requests, sadi_of(lm)), strict=True):
        for choice, answer in enumerate(request.answers):
            logits = plain_logits(lm, request.prompt + answer)[len(request.prompt) - 1 : -1]
            steps = logits.log_softmax(-1)[range(len(answer)), list(answer)]
            assert scores.logprobs[choice, 0] == pytest.approx(steps.sum().item(), abs=TOLERANCE)
            said = logits.argmax(-1).tolist()
            assert scores.predicted[choice][:, 0].tolist() == said
            assert scores.greedy[choice, 0] == (said == list(answer))
            texts = [lm.tokenizer.decode(tokens) for tokens in (said, answer)]
            assert paper_match(*texts) == matches(*texts)
            flags.append(bool(scores.greedy[choice, 0]))
    assert set(flags) == {True, False}


SCALES = [0.0, 1.0, -2.0, 9.0]


def assert_calibrated(lm, requests):
    """Constants of all signs and sizes; return how many predictions they changed."""
    changed = 0
    for request in requests:
        bias = np.array([2.0, -1.0, 3.5, 0.5])[: len(request.answers)]
        intervention = ChoiceBias(
            answers=request.answers,
            bias=torch.from_numpy(bias),
            cells=Calibrate(scale=SCALES).grid(),
        )
        (scores,) = score_choices(lm, [request], intervention)
        for cell, scale in enumerate([0.0, *SCALES]):
            logprobs, greedy, predicted = score_calibrated(
                lm.network, request.prompt, request.answers, (scale * bias).tolist()
            )
            np.testing.assert_allclose(scores.logprobs[:, cell], logprobs, atol=TOLERANCE, rtol=0)
            assert predicted_in(scores, cell) == predicted
            assert scores.greedy[:, cell].tolist() == greedy
            changed += predicted_in(scores, cell) != predicted_in(scores, 0)
    return changed


def test_answers_with_constants_equal_the_slow_loop(lm):
    requests = requests_for(lm.name)
    parting = [dataclasses.replace(r, answers=(*r.answers[1:], (5, 6))) for r in requests]
    assert assert_calibrated(lm, parting) > 2
    short = [dataclasses.replace(r, answers=((5,), (77,))) for r in requests]
    assert assert_calibrated(lm, short) > 2


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_answers_with_constants_in_rows_equal_the_slow_loop(name):
    requests = [dataclasses.replace(r, answers=r.answers[1:]) for r in requests_for(name)]
    assert assert_calibrated(in_rows(tiny_lm(name)), requests) > 2


@pytest.mark.parametrize("build", [tiny_lm, lambda name: in_rows(tiny_lm(name))])
def test_answers_that_begin_alike_get_constants_where_they_part(build):
    lm = build("llama")
    answers = ((7, 8, 9), (7, 8, 4, 6), (7, 5))
    requests = [dataclasses.replace(r, answers=answers) for r in requests_for("llama")]
    assert assert_calibrated(lm, requests) > 2


def sadi_of(lm):
    return Sadi(top_k=[2], strength=[4.0]).fit(lm, contrasts())


def test_a_sliding_window_is_felt_by_prompts_beyond_it():
    """The same weights without a window: only the long prompt's scores differ."""
    windowed, free = tiny_lm("mistral_window"), tiny_lm("mistral")
    requests = requests_for("mistral", (9, 30))
    scores = [score_choices(each, requests, sadi_of(free)) for each in (windowed, free)]
    short, long = (abs(a.logprobs - b.logprobs).max() for a, b in zip(*scores, strict=True))
    assert short < TOLERANCE < 0.1 < long
