"""A model that accelerate spreads, layer by layer, scores as one that is in one place."""

import copy

import pytest
import torch
from accelerate import dispatch_model
from torch import nn

from applied_cases import PROMPTS, fitted
from cases import assert_same, contrasts, requests_for, tiny_lm
from sadi_bench.models.families import blocks_of, family_of
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.self_test import self_tested
from sadi_bench.scoring.choices import score_choices
from sadi_bench.steering.applied import applied
from sadi_bench.steering.methods.sadi import Sadi


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "bloom"])
@pytest.mark.parametrize("site", ["head", "neuron", "hidden"])
def test_layers_in_two_places_score_as_in_one(name, site, tmp_path):
    whole = tiny_lm(name)
    spread = LanguageModel(name, dispatched(whole.network, tmp_path), whole.tokenizer)
    found, expected = (
        score_choices(lm, requests_for(name), method(site).fit(lm, contrasts()))
        for lm in (spread, whole)
    )
    assert_same(found, expected)


@pytest.mark.parametrize("name", ["llama", "granite", "bloom"])
def test_layers_in_two_places_pass_the_self_test(name, tmp_path):
    whole = tiny_lm(name)
    spread = LanguageModel(name, dispatched(whole.network, tmp_path), whole.tokenizer)
    assert self_tested(spread) is spread


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_layers_in_two_places_write_as_in_one_inside_a_block(name, tmp_path):
    """And keep the methods that accelerate gave them."""
    whole = tiny_lm(name).network
    spread = dispatched(whole, tmp_path)
    before = {module: vars(module).get("forward") for _, module in spread.named_modules()}
    prompt = torch.tensor(PROMPTS[1:2])
    texts = []
    for network in (whole, spread):
        with applied(network, fitted(name, "sadi every step"), 1):
            texts.append(network.generate(prompt, max_new_tokens=6, do_sample=False))
    assert torch.equal(*texts)
    assert not torch.equal(texts[0], whole.generate(prompt, max_new_tokens=6, do_sample=False))
    assert before == {module: vars(module).get("forward") for _, module in spread.named_modules()}


def method(site: str) -> Sadi:
    return Sadi(site=site, top_k=[1, 3], strength=[2.0, 4.0])


def dispatched(network: nn.Module, folder) -> nn.Module:
    """Put every other block on the disk: accelerate brings it in while it runs."""
    network = copy.deepcopy(network)
    family = family_of(network.config)
    places = {
        f"{family.blocks}.{layer}": "disk" if layer % 2 else "cpu"
        for layer in range(len(blocks_of(network, family)))
    }
    for name, module in network.named_modules():
        inside = any(name == block or name.startswith(f"{block}.") for block in places)
        if name and not inside and not list(module.children()):
            places[name] = "cpu"
    spread = dispatch_model(network, places, main_device="cpu", offload_dir=str(folder))
    assert next(blocks_of(spread, family)[1].parameters()).device.type == "meta"
    return spread
