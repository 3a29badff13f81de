"""Blocks in blocks and in threads: each edits alone, and the model is as it was afterwards."""

import threading
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from applied_cases import METHODS, PROMPTS, fitted, padded
from cases import contrasts, tiny_lm
from sadi_bench.errors import SettingError
from sadi_bench.models.families import blocks_of
from sadi_bench.steering.applied import applied
from sadi_bench.steering.methods.caa import Caa
from sadi_bench.steering.methods.calibrate import Calibrate, ChoiceBias
from sadi_bench.steering.methods.sadi import Sadi
from tiny import build

PROMPT = torch.tensor([PROMPTS[0]])


def logits_of(network, **inputs):
    with torch.no_grad():
        return network(**({"input_ids": PROMPT} | inputs)).logits


def traces(network):
    """All that a block could leave: attributes, hooks, methods, weights."""
    modules = {
        name: (sorted(vars(module)), *(len(vars(module)[hooks]) for hooks in (
            "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs",
            "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called")))
        for name, module in network.named_modules()
    }  # fmt: skip
    return modules, {name: value.clone() for name, value in network.state_dict().items()}


def assert_as_before(network, before):
    modules, weights = traces(network)
    assert modules == before[0]
    assert weights.keys() == before[1].keys()
    assert all(torch.equal(value, before[1][name]) for name, value in weights.items())


@pytest.fixture
def network():
    """A model of its own, so that nothing another test left is taken for the state before."""
    return build("llama")


class Broken(Exception):
    pass


@pytest.mark.parametrize("method", METHODS)
def test_a_block_leaves_nothing_behind_whatever_happens_in_it(network, method):
    before, plain = traces(network), logits_of(network)
    for _ in range(2):
        with applied(network, fitted("llama", method), 1):
            steered = logits_of(network)
            network.generate(PROMPT, max_new_tokens=2, do_sample=False)
        assert_as_before(network, before)
        assert not torch.allclose(steered, plain, atol=0.01)
    with pytest.raises(Broken), applied(network, fitted("llama", method), 1):
        raise Broken
    with pytest.raises(IndexError), applied(network, fitted("llama", method), 1):
        logits_of(network, input_ids=torch.tensor([[10**6]]))
    assert_as_before(network, before)
    assert torch.equal(logits_of(network), plain)


def test_an_error_inside_a_pass_does_not_reach_the_next_one(network):
    """A pass that breaks half-way, and a generate that does, leave no prompt to be mistaken."""
    intervention = fitted("llama", "sadi every step")
    with applied(network, intervention, 1):
        expected = logits_of(network)
    with applied(network, intervention, 1):
        with pytest.raises(IndexError):
            network.generate(torch.tensor([[5, 10**6, 7]]), max_new_tokens=3)
        handle = blocks_of(network, tiny_lm("llama").family)[1].register_forward_hook(stop)
        with pytest.raises(Broken):
            network(PROMPT[:, :3])
        with pytest.raises(Broken):
            network.generate(PROMPT[:, :3], max_new_tokens=3)
        handle.remove()
        assert torch.equal(logits_of(network), expected)


def stop(*_):
    raise Broken


def test_cell_0_is_the_unsteered_model(network):
    plain, before = logits_of(network), traces(network)
    with applied(network, fitted("llama", "sadi"), 0):
        assert torch.equal(logits_of(network), plain)
        assert_as_before(network, before)


def test_two_blocks_add_up(network):
    shift = Caa(layer=1, multiplier=[1.0, 2.0]).fit(tiny_lm("llama"), contrasts())
    with applied(network, shift, 2):
        expected = logits_of(network)
    with applied(network, shift, 1), applied(network, shift, 1):
        torch.testing.assert_close(logits_of(network), expected, rtol=0, atol=5e-5)
    with applied(network, shift, 2), applied(network, fitted("llama", "tda"), 1):
        both = logits_of(network)
        with applied(network, shift, 1):
            logits_of(network)
        assert torch.equal(logits_of(network), both)
    assert not torch.allclose(both, expected, atol=0.01)


def neurons(network, interventions):
    """Record the FFN units of every layer as they leave their module's last hook."""
    lm, seen = tiny_lm("llama"), {}
    with ExitStack() as stack:
        for intervention in interventions:
            stack.enter_context(applied(network, intervention, 1))
        for layer, block in enumerate(blocks_of(network, lm.family)):

            def note(_module, _args, output, layer=layer):
                seen[layer] = output.clone()

            module = block.get_submodule(lm.family.neuron.module)
            stack.callback(module.register_forward_hook(note).remove)
        logits_of(network)
    return seen


@pytest.mark.parametrize("outer_first", [True, False])
def test_clean_values_are_those_of_no_block_at_all(network, outer_first):
    """SADI's overwritten values know nothing of a shift that another block makes below them."""
    clean = Sadi(site="neuron", top_k=6, strength=[-4.0]).fit(tiny_lm("llama"), contrasts())
    shift = Caa(layer=0, multiplier=[2.0]).fit(tiny_lm("llama"), contrasts())
    unsteered, shifted, seen = (
        neurons(network, blocks)
        for blocks in ((), (shift,), (shift, clean) if outer_first else (clean, shift))
    )
    for layer in range(clean.first_layer(1), len(seen)):
        old = unsteered[layer][:, -1:]
        new = clean.edit(layer, old[:, None], torch.tensor([1]))
        torch.testing.assert_close(seen[layer][:, -1:], old if new is None else new[:, 0])
        if layer:
            assert not torch.allclose(shifted[layer][:, -1:], old, atol=1e-3), "there was a shift"


def test_blocks_of_several_threads_may_end_in_any_order(network):
    before, plain = traces(network), logits_of(network)
    names = ["sadi", "caa", "tda", "sadi every step"]
    opened = [threading.Event() for _ in names]
    close = [threading.Event() for _ in names]

    def work(index, name):
        with applied(network, fitted("llama", name), 1):
            opened[index].set()
            close[index].wait(20)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(names)]
    for thread, event in zip(threads, opened, strict=True):
        thread.start()
        assert event.wait(20)
    assert not torch.allclose(logits_of(network), plain, atol=0.01)
    for index in (1, 3, 0, 2):
        close[index].set()
        threads[index].join(20)
        if index == 0:
            with applied(network, fitted("llama", "caa"), 0):
                found = logits_of(network)
    assert_as_before(network, before)
    with applied(network, fitted("llama", "tda"), 1):
        assert torch.equal(logits_of(network), found)


def test_threads_that_run_one_model_do_not_disturb_each_other(network):
    """Each has its own prompts, its own clean pass and its own texts."""
    intervention = fitted("llama", "sadi every step")
    texts = [torch.tensor([prompt]) for prompt in PROMPTS[:3]]
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    found = [[] for _ in texts]

    def write(index):
        for _ in range(2):
            found[index].append(network.generate(texts[index], **settings))

    with applied(network, intervention, 1):
        expected = [network.generate(text, **settings) for text in texts]
        threads = [threading.Thread(target=write, args=(i,)) for i in range(len(texts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    for wanted, runs in zip(expected, found, strict=True):
        assert len(runs) == 2 and all(torch.equal(run, wanted) for run in runs)


def test_gradients_flow_through_the_steered_model(network):
    """Against a difference quotient, clean values included."""
    embeddings = network.get_input_embeddings()(PROMPT).detach().double()
    network.double()
    step = torch.randn(
        embeddings.shape, dtype=torch.double, generator=torch.Generator().manual_seed(0)
    )

    def loss(values):
        with applied(network, fitted("llama", "sadi every step"), 1):
            return network(inputs_embeds=values).logits[0, -1].logsumexp(0)

    start = embeddings.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(start), start)
    with torch.no_grad():
        quotient = (loss(embeddings + 1e-3 * step) - loss(embeddings - 1e-3 * step)) / 2e-3
    np.testing.assert_allclose((slope * step).sum().item(), quotient.item(), rtol=0.02)


@pytest.mark.parametrize("method", ["sadi every step", "tda"])
def test_a_cache_that_was_cut_short_or_is_unknown(network, method):
    inputs = {"input_ids": torch.tensor([PROMPTS[0] + PROMPTS[2]])}
    with applied(network, fitted("llama", method), 1, prompt_tokens=[5]):
        expected = logits_of(network, **inputs)
        past = DynamicCache()
        logits_of(network, past_key_values=past)
        past.crop(-3)
        logits = logits_of(network, input_ids=inputs["input_ids"][:, 6:], past_key_values=past)
        torch.testing.assert_close(logits, expected[:, 6:], rtol=0, atol=5e-5)
    with torch.no_grad():
        past = network(input_ids=PROMPT).past_key_values
    match = "past_key_values: .*holds tokens that no block has seen"
    with applied(network, fitted("llama", method), 1), pytest.raises(SettingError, match=match):
        logits_of(network, input_ids=torch.tensor([[5]]), past_key_values=past)


def test_what_cannot_be_steered_is_refused_in_one_line(network):
    sadi = fitted("llama", "sadi")
    constants = ChoiceBias(
        answers=((5,), (6,)), bias=torch.zeros(2), cells=Calibrate(scale=[1.0]).grid()
    )
    for intervention, cell, match in (
        (sadi, 7, "cell=7: the intervention has cells 0 to 1; choose one of them"),
        (sadi, -1, "cell=-1: "),
        (constants, 1, "intervention=ChoiceBias: it adds constants .* score answers with it"),
    ):
        with pytest.raises(SettingError, match=match), applied(network, intervention, cell):
            pass
    for ends, match in (
        ([4, 4], r"prompt_tokens=\[4, 4\]: the input has 1 rows; give one number a row"),
        ([10], r"prompt_tokens=\[10\]: row 0 has 9 tokens; choose 1 to 9"),
        ([0], r"prompt_tokens=\[0\]: row 0 has 9 tokens"),
    ):
        with (
            pytest.raises(SettingError, match=match),
            applied(network, sadi, 1, prompt_tokens=ends),
        ):
            logits_of(network)
    for wrong, match in (
        ({"attention_mask": torch.ones(1, 1, 9, 9)}, r"attention_mask=\(1, 1, 9, 9\): .*\(1, 9\)"),
        ({"cu_seq_lens_q": torch.tensor([0, 4, 9])}, "cu_seq_lens_q: .*one row a text"),
    ):
        with pytest.raises(SettingError, match=match), applied(network, sadi, 1):
            logits_of(network, **wrong)


@pytest.mark.usefixtures("types_unchecked")
def test_compiled_code_is_refused_or_left_aside(network):
    """What is compiled without the hooks would run unsteered, and say nothing."""
    calls = []
    network._compiled_call = lambda **kwargs: calls.append(kwargs)  # as an earlier generate leaves
    with applied(network, fitted("llama", "sadi"), 1):
        assert network.get_compiled_call(None) == network.__call__
    assert network.get_compiled_call(None) is network._compiled_call
    whole = torch.compile(network, backend="eager")
    network.model.layers[1].compile(backend="eager")
    match = "network: it was compiled, .*before torch.compile"
    for compiled in (network, whole):
        with pytest.raises(SettingError, match=match):
            applied(compiled, fitted("llama", "sadi"), 1).__enter__()


def test_the_blocks_hold_with_padding_on_either_side(network):
    """No position ids are given: where the mask says that a row ends, it ends."""
    lm, intervention = tiny_lm("llama"), fitted("llama", "sadi")
    with applied(network, intervention, 1):
        for side in ("left", "right"):
            inputs = padded(lm, PROMPTS, side)
            logits = logits_of(network, **inputs)
            for row, prompt in enumerate(PROMPTS):
                alone = logits_of(network, input_ids=torch.tensor([prompt]))[0]
                real = inputs["attention_mask"][row].bool()
                torch.testing.assert_close(logits[row][real], alone, rtol=0, atol=5e-5)
