"""What transformers' own code says inside a block, held against the packed engine."""

import dataclasses

import numpy as np
import pytest
import torch

from applied_cases import METHODS, PROMPTS, fitted, padded
from cases import requests_for, tiny_lm
from sadi_bench.scoring.choices import score_choices
from sadi_bench.scoring.generation import GenerationRequest, generate
from sadi_bench.steering.applied import applied
from tiny import TINY

TOLERANCE = 5e-5
SOME = ["llama", "bloom", "gemma3"]
EVERY_METHOD = [(name, method) for name in SOME for method in METHODS]
EVERY_FAMILY = [(name, "sadi every step") for name in TINY if name not in SOME]


def said(logits, mask, request, answer):
    """Sum the answer's log-probabilities in one row of logits."""
    steps = logits[mask.bool()].log_softmax(-1)[len(request.prompt) - 1 :]
    return sum(steps[i, token].item() for i, token in enumerate(answer))


def assert_engine(found, name, method, requests):
    """Hold log-probabilities [request][answer] of cell 1 against the packed engine's."""
    moved = 0.0
    scored = score_choices(tiny_lm(name), requests, fitted(name, method))
    for ours, theirs in zip(found, scored, strict=True):
        np.testing.assert_allclose(ours, theirs.logprobs[:, 1], atol=TOLERANCE, rtol=0)
        moved = max(moved, np.abs(theirs.logprobs[:, 1] - theirs.logprobs[:, 0]).max())
    assert moved > 0.01, "steering must show"


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD + EVERY_FAMILY)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_plain_pass_over_prompts_and_answers_says_what_the_engine_says(name, method, side):
    lm, requests = tiny_lm(name), requests_for(name)
    pairs = [(request, answer) for request in requests for answer in request.answers]
    inputs = padded(lm, [request.prompt + answer for request, answer in pairs], side)
    ends = [len(request.prompt) for request, _ in pairs]
    with torch.no_grad(), applied(lm.network, fitted(name, method), 1, prompt_tokens=ends):
        logits = lm.network(**inputs).logits
    rows = zip(logits, inputs["attention_mask"], pairs, strict=True)
    sums = [said(found, mask, *pair) for found, mask, pair in rows]
    assert_engine(np.array(sums).reshape(len(requests), -1), name, method, requests)


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_answers_behind_a_cache_say_what_the_engine_says(name, method):
    """The prompts in one pass, padded left; each answer in a second, token by token in a third."""
    lm, requests = tiny_lm(name), requests_for(name)
    pairs = [(request, request.answers[1]) for request in requests]
    prompts = padded(lm, [request.prompt for request in requests], "left")
    answers = torch.tensor([answer for _, answer in pairs])
    mask = torch.cat([prompts["attention_mask"], torch.ones_like(answers)], dim=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    width = prompts["input_ids"].shape[1]
    for ends in ([width + 3], [width + 1, width + 2, width + 3]):
        with torch.inference_mode(), applied(lm.network, fitted(name, method), 1):
            output = lm.network(**prompts, use_cache=True)
            logits, start = [output.logits], width
            for end in ends:
                inputs = {"input_ids": answers[:, start - width : end - width]}
                if lm.takes_position_ids:
                    inputs["position_ids"] = positions[:, start:end]
                output = lm.network(**inputs, attention_mask=mask[:, :end],
                                    past_key_values=output.past_key_values)  # fmt: skip
                start = end
                logits.append(output.logits)
        rows = zip(torch.cat(logits, dim=1), mask, pairs, strict=True)
        sums = [[said(found, real, *pair)] for found, real, pair in rows]
        only = [dataclasses.replace(r, answers=(a,)) for r, a in pairs]
        assert_engine(sums, name, method, only)


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD + EVERY_FAMILY)
def test_generate_writes_what_the_engine_writes(name, method):
    lm, intervention = tiny_lm(name), fitted(name, method)
    expected = generate(lm, [GenerationRequest(p, 6) for p in PROMPTS], intervention, [0, 1])
    inputs = padded(lm, PROMPTS, "left")
    inputs.pop("position_ids", None)
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    settings["eos_token_id"] = sorted(
        {lm.tokenizer.eos_token_id, lm.network.generation_config.eos_token_id}
    )
    with applied(lm.network, intervention, 1):
        cached = lm.network.generate(**inputs, **settings)
        uncached = lm.network.generate(**inputs, **settings, use_cache=False)
    assert torch.equal(cached, uncached)
    written = cached[:, inputs["input_ids"].shape[1] :].tolist()
    for row, cells in zip(written, expected, strict=True):
        assert tuple(row[: len(cells[1].tokens)]) == cells[1].tokens
    assert any(cells[1].tokens != cells[0].tokens for cells in expected), "steering must show"
