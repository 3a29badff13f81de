"""A network that runs out of memory on passes beyond a number of tokens."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from cases import assert_same, contrasts, requests_for, tiny_lm
from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.scoring.choices import score_choices
from sadi_bench.scoring.generation import GenerationRequest, generate
from sadi_bench.steering.activations import mean_difference
from sadi_bench.steering.methods.inferaligner import InferAligner
from sadi_bench.steering.methods.sadi import Sadi
from sadi_bench.steering.methods.tda import Tda

LENGTHS = (3, 30, 1, 9, 12, 14, 30, 6)


@contextmanager
def room_for(model, tokens: int, error: Exception) -> Iterator[list[int]]:
    """Fail in the middle of the network; yields the sizes of the passes that failed."""
    failed: list[int] = []

    def check(_module, args) -> None:
        size = args[0].shape[:-1].numel()
        if size > tokens:
            failed.append(size)
            raise error

    middle = model.network.get_submodule(model.family.blocks)[1]
    handle = middle.register_forward_pre_hook(check)
    try:
        yield failed
    finally:
        handle.remove()


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."),
]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu"])
@pytest.mark.parametrize("tokens", [150, 62, 31])
@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_a_run_goes_on_and_loses_nothing(name, tokens, error):
    """150: fewer prompts a pass; 62 and 31: one prompt and fewer cells."""
    model, requests = tiny_lm(name), requests_for(name, LENGTHS)
    method = Sadi(top_k=[1, 4], strength=[2.0, 3.0, 4.0, 5.0], patch="inflight")
    intervention = method.fit(model, contrasts())
    expected = score_choices(model, requests, intervention)
    with room_for(model, tokens, error) as failed:
        found = score_choices(model, requests, intervention)
    assert failed
    assert_same(found, expected)
    assert_same(score_choices(model, requests, intervention), expected, 0)


@pytest.mark.parametrize("method", [Tda([0.6, 1.2]), InferAligner(top_k=[1, 2], alpha=0.5)])
def test_what_a_method_does_counts_once_though_its_pass_is_repeated(method):
    model, requests = tiny_lm("llama"), requests_for("llama", LENGTHS)
    intervention = method.fit(model, contrasts())
    (name,) = score_choices(model, requests[:1], intervention)[0].measured
    expected = [scores.measured[name] for scores in score_choices(model, requests, intervention)]
    with room_for(model, 150, ERRORS[0]) as failed:
        found = score_choices(model, requests, intervention)
    assert failed
    np.testing.assert_allclose([scores.measured[name] for scores in found], expected, atol=1e-6)
    prompts = [GenerationRequest(request.prompt, 3) for request in requests]
    with room_for(model, 150, ERRORS[0]) as failed:
        written = generate(model, prompts, intervention, [0, 1, 2])
    assert failed
    told = [[cells[cell].measured[name] for cell in range(3)] for cells in written]
    np.testing.assert_allclose(told, np.array(expected)[:, :3], atol=1e-6)


def test_the_smaller_size_is_kept_for_the_passes_that_follow(llama):
    requests = requests_for("llama", (5,)) * 64
    intervention = Sadi(top_k=[1, 4], strength=[2.0, 3.0]).fit(llama, contrasts())
    with room_for(llama, 100, ERRORS[0]) as failed:
        score_choices(llama, requests, intervention, token_budget=640)
    assert 1 <= len(failed) <= 5


def test_one_prompt_and_one_cell_beyond_the_memory_are_an_error_of_the_settings(llama):
    requests = requests_for("llama")
    intervention = Sadi(top_k=[1, 4], strength=[2.0, 3.0]).fit(llama, contrasts())
    with (
        room_for(llama, 2, ERRORS[0]),
        pytest.raises(SettingError, match=r"out of memory with one prompt.*model\.dtype") as caught,
    ):
        score_choices(llama, requests, intervention)
    assert "\n" not in str(caught.value)


def test_another_error_of_the_network_is_not_taken_for_it(llama):
    requests = requests_for("llama")
    intervention = Sadi(top_k=1, strength=2.0).fit(llama, contrasts())
    with room_for(llama, 2, RuntimeError("shapes")), pytest.raises(RuntimeError, match="shapes"):
        score_choices(llama, requests, intervention)
    scores = score_choices(llama, requests, intervention)
    assert all(np.isfinite(s.logprobs).all() for s in scores)


def test_reading_pairs_goes_on_as_well(llama):
    pairs = contrasts(8)
    expected = mean_difference(llama, pairs, Site.head)
    with room_for(llama, 60, ERRORS[0]) as failed:
        found = mean_difference(llama, pairs, Site.head)
    assert failed
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
