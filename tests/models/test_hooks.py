"""Hooks edit what they should while they are there, and leave nothing behind."""

from contextlib import ExitStack

import pytest
import torch
from torch import Tensor

from cases import contrasts, plain_logits, requests_for, tiny_lm
from sadi_bench.models.families import Site, blocks_of
from sadi_bench.models.hooks import edited, only_blocks, recorded_blocks
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.scoring.choices import score_choices
from sadi_bench.steering.activations import mean_difference
from sadi_bench.steering.methods.sadi import Sadi

TOKENS = (5, 6, 7, 8, 9)


def left_behind(lm: LanguageModel) -> list[str]:
    """Name every module that has a hook or a `forward` of its own."""
    return [
        name
        for name, module in lm.network.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    ]


@pytest.mark.parametrize("site", Site)
def test_an_identity_edit_changes_nothing_and_another_edit_does(lm, site):
    plain = plain_logits(lm, TOKENS)
    seen = {}

    def identity(layer: int, values: Tensor) -> Tensor:
        seen[layer] = values.shape
        return values.clone()

    with edited(lm.network, lm.family, site, identity):
        assert torch.equal(plain_logits(lm, TOKENS), plain)
    assert sorted(seen) == list(range(lm.num_layers))
    for chosen in range(lm.num_layers):

        def mirrored(layer: int, values: Tensor, chosen: int = chosen) -> Tensor | None:
            return values + values.flip(-1) if layer == chosen else None

        with edited(lm.network, lm.family, site, mirrored):
            assert not torch.equal(plain_logits(lm, TOKENS), plain), chosen
    assert left_behind(lm) == []
    assert torch.equal(plain_logits(lm, TOKENS), plain)


class Broken(Exception):
    pass


def break_in(layer: int, values: Tensor) -> None:  # noqa: ARG001
    if layer == 1:
        raise Broken


def contexts(lm: LanguageModel) -> dict:
    state = torch.ones(1, len(TOKENS), 32)
    return {
        "edited": lambda: edited(lm.network, lm.family, Site.head, lambda *_: None),
        "edited output": lambda: edited(lm.network, lm.family, Site.residual, lambda *_: None),
        "only_blocks": lambda: only_blocks(lm.network, lm.family, 1, 2, state),
        "recorded_blocks": lambda: recorded_blocks(lm.network, lm.family, {0, 2}),
    }


@pytest.mark.parametrize("name", ["llama", "falcon_new", "bloom", "opt"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_nothing_is_left_after_an_exception_inside_nested_contexts(name, depth):
    lm = tiny_lm(name)
    plain = plain_logits(lm, TOKENS)
    made = list(contexts(lm).values())
    for first in range(len(made)):
        with pytest.raises(Broken), ExitStack() as stack:
            for place in range(depth):
                stack.enter_context(made[(first + place) % len(made)]())
            assert left_behind(lm)
            raise Broken
        assert left_behind(lm) == []
        assert torch.equal(plain_logits(lm, TOKENS), plain)


@pytest.mark.parametrize("site", Site)
def test_nothing_is_left_after_an_exception_inside_an_edit(lm, site):
    plain = plain_logits(lm, TOKENS)
    with pytest.raises(Broken), edited(lm.network, lm.family, site, break_in):
        plain_logits(lm, TOKENS)
    assert left_behind(lm) == []
    assert torch.equal(plain_logits(lm, TOKENS), plain)


def test_nothing_is_left_where_a_site_is_not_found(llama):
    """The error comes half-way: the hooks registered before it go as well."""
    block = blocks_of(llama.network, llama.family)[2]
    projection = block.self_attn.o_proj
    del block.self_attn.o_proj
    try:
        with (
            pytest.raises(AttributeError),
            edited(llama.network, llama.family, Site.head, lambda *_: None),
        ):
            pass
    finally:
        block.self_attn.o_proj = projection
    assert left_behind(llama) == []


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_a_forward_set_by_accelerate_comes_back(name):
    lm = tiny_lm(name)
    block = blocks_of(lm.network, lm.family)[1]
    calls = []
    own = type(block).forward.__get__(block)

    def dispatched(*args, **kwargs):
        calls.append(1)
        return own(*args, **kwargs)

    plain = plain_logits(lm, TOKENS)
    block.forward = dispatched
    try:
        with pytest.raises(Broken), only_blocks(lm.network, lm.family, 2, 3):
            plain_logits(lm, TOKENS)
            assert calls == []
            raise Broken
        assert vars(block)["forward"] is dispatched
        with only_blocks(lm.network, lm.family, 1, 3):
            plain_logits(lm, TOKENS)
        assert calls == [1]
        assert torch.equal(plain_logits(lm, TOKENS), plain)
    finally:
        del block.forward


def test_the_network_is_bitwise_the_same_after_fitting_and_scoring(lm):
    plain = plain_logits(lm, TOKENS)
    weights = {name: value.clone() for name, value in lm.network.state_dict().items()}
    for site in ("head", "neuron", "hidden"):
        intervention = Sadi(site=site, top_k=[1, 5], strength=[2.0, 3.0]).fit(lm, contrasts())
        score_choices(lm, requests_for(lm.name), intervention)
    assert left_behind(lm) == []
    assert torch.equal(plain_logits(lm, TOKENS), plain)
    assert all(torch.equal(weights[k], v) for k, v in lm.network.state_dict().items())


def test_nothing_is_left_after_an_exception_while_reading_pairs(llama):
    middle = blocks_of(llama.network, llama.family)[1]

    def fail(_module, _args):
        raise Broken

    handle = middle.mlp.register_forward_pre_hook(fail)
    try:
        with pytest.raises(Broken):
            mean_difference(llama, contrasts(), Site.head)
    finally:
        handle.remove()
    assert left_behind(llama) == []


def test_only_blocks_runs_the_blocks_it_names(lm):
    """The first block alone, then the others on what it returned: the whole network."""
    ids = torch.tensor([TOKENS])
    with torch.no_grad():
        whole = lm.backbone(input_ids=ids, use_cache=False).last_hidden_state
        with recorded_blocks(lm.network, lm.family, {1}) as seen:
            lm.backbone(input_ids=ids, use_cache=False)
        with only_blocks(lm.network, lm.family, 1, lm.num_layers, seen[1]):
            other = torch.zeros_like(ids)  # the embeddings are not looked at
            found = lm.backbone(input_ids=other, use_cache=False).last_hidden_state
        with only_blocks(lm.network, lm.family, 0, 1):
            early = lm.backbone(input_ids=ids, use_cache=False).last_hidden_state
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-6)
    assert not torch.equal(early, whole)
