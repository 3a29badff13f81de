"""Last-token activations of pairs, batched, equal those read one sequence at a time."""

import copy
import dataclasses
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from cases import contrasts, in_rows, pair_rows, tiny_lm
from damage import flip
from sadi_bench.models.families import Site
from sadi_bench.steering import activations, cache
from sadi_bench.steering.activations import (
    EncodedContrast,
    all_activations,
    mean_difference,
    pair_activations,
    prompt_activations,
)
from slow_loop import mean_difference as slow_mean_difference
from slow_loop import run_once

SITES = [(Site.head, "head", "mlp_out"), (Site.neuron, "neuron", "mlp_out"),
         (Site.hidden, "hidden", "mlp_out"), (Site.residual, "hidden", "residual")]  # fmt: skip


@pytest.mark.parametrize(("site", "slow_site", "hidden_site"), SITES)
def test_the_mean_difference_equals_the_slow_loops(lm, site, slow_site, hidden_site):
    pairs = [*contrasts(5), EncodedContrast(tuple(range(3, 33)), (5, 6, 7), (5,), 5)]
    expected = slow_mean_difference(lm.network, pair_rows(pairs), slow_site, hidden_site)
    found = mean_difference(lm, pairs, site)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected.flatten(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "opt"])
def test_rows_read_what_a_packed_tree_reads(name):
    for site in Site:
        packed = mean_difference(tiny_lm(name), contrasts(), site)
        rows = mean_difference(in_rows(tiny_lm(name)), contrasts(), site)
        torch.testing.assert_close(rows, packed, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "bloom", "gemma3"])
def test_neither_order_nor_batch_changes_the_mean(name, monkeypatch):
    lm, pairs = tiny_lm(name), contrasts(7)
    expected = mean_difference(lm, pairs, Site.hidden)
    shuffled = [pairs[i] for i in (4, 1, 6, 0, 5, 2, 3)]
    torch.testing.assert_close(
        mean_difference(lm, shuffled, Site.hidden), expected, rtol=0, atol=1e-6
    )
    monkeypatch.setattr(activations, "TOKENS_PER_PASS", 1)
    alone = mean_difference(lm, pairs, Site.hidden)
    torch.testing.assert_close(alone, expected, rtol=0, atol=1e-6)


def test_activations_come_with_the_numbers_of_their_pairs(llama, monkeypatch):
    monkeypatch.setattr(activations, "TOKENS_PER_PASS", 40)
    pairs = contrasts(6)
    read = list(pair_activations(llama, pairs, Site.head))
    assert len(read) > 1
    assert sorted(i for numbers, _ in read for i in numbers) == list(range(6))
    for numbers, values in read:
        for number, both in zip(numbers, values[Site.head], strict=True):
            ((_, alone),) = pair_activations(llama, [pairs[number]], Site.head)
            torch.testing.assert_close(both, alone[Site.head][0], rtol=0, atol=1e-5)


def test_all_activations_come_in_the_order_of_the_pairs(lm, monkeypatch):
    monkeypatch.setattr(activations, "TOKENS_PER_PASS", 40)
    pairs = contrasts(6)
    found = all_activations(lm, pairs, Site.residual)
    for number, pair in enumerate(pairs):
        ((_, alone),) = pair_activations(lm, [pair], Site.residual)
        torch.testing.assert_close(found[number], alone[Site.residual][0], rtol=0, atol=1e-5)


def test_a_model_with_a_name_is_read_once_for_all_sites(monkeypatch):
    lm = dataclasses.replace(tiny_lm("llama"), fingerprint="tiny llama, seed 0")
    expected = [mean_difference(tiny_lm("llama"), contrasts(), site) for site in Site]
    first = mean_difference(lm, contrasts(), Site.head)
    monkeypatch.setattr(activations, "pair_activations", None)  # a second reading would fail
    for site, values in zip(Site, expected, strict=True):
        torch.testing.assert_close(mean_difference(lm, contrasts(), site), values, rtol=0, atol=0)
    torch.testing.assert_close(first, expected[0], rtol=0, atol=0)


def test_all_activations_of_a_model_with_a_name_are_read_once(monkeypatch):
    lm = dataclasses.replace(tiny_lm("llama"), fingerprint="tiny llama, seed 0")
    expected = all_activations(tiny_lm("llama"), contrasts(), Site.head)
    assert torch.equal(all_activations(lm, contrasts(), Site.head), expected)
    other = all_activations(lm, contrasts(), Site.residual)
    monkeypatch.setattr(activations, "pair_activations", None)  # a second reading would fail
    assert torch.equal(all_activations(lm, contrasts(), Site.head), expected)
    assert torch.equal(all_activations(lm, contrasts(), Site.residual), other)


def test_more_activations_than_the_cache_takes_are_read_again(monkeypatch):
    lm = dataclasses.replace(tiny_lm("llama"), fingerprint="tiny llama, seed 0")
    monkeypatch.setattr(activations, "MOST_KEPT", 100)
    expected = all_activations(lm, contrasts(), Site.head)
    assert not list(cache.cache_folder().rglob("*.safetensors"))
    assert torch.equal(all_activations(lm, contrasts(), Site.head), expected)


@pytest.mark.parametrize("site", [Site.residual, Site.neuron])
def test_prompts_are_read_at_their_last_token_in_the_order_of_the_pairs(lm, site, monkeypatch):
    monkeypatch.setattr(activations, "TOKENS_PER_PASS", 40)
    pairs = contrasts(6)
    found = prompt_activations(lm, pairs, site)
    slow = {Site.residual: ("hidden", "residual"), Site.neuron: ("neuron", "mlp_out")}[site]
    for number, pair in enumerate(pairs):
        _, layers = run_once(lm.network, pair.prompt, *slow)
        alone = torch.stack([layer[-1] for layer in layers])
        torch.testing.assert_close(found[number], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("change", ["fingerprint", "dtype", "pairs"])
def test_what_is_kept_is_not_taken_for_something_else(change):
    lm = dataclasses.replace(tiny_lm("llama"), fingerprint="tiny llama, seed 0")
    pairs = contrasts()
    kept = mean_difference(lm, pairs, Site.head)
    if change == "fingerprint":
        other = dataclasses.replace(tiny_lm("gpt2"), fingerprint="tiny gpt2, seed 0")
    elif change == "dtype":
        network = copy.deepcopy(lm.network).bfloat16()
        other = dataclasses.replace(lm, network=network)
    else:
        other, pairs = lm, contrasts(8)
    found = mean_difference(other, pairs, Site.head)
    unnamed = dataclasses.replace(other, fingerprint="")
    assert torch.equal(found, mean_difference(unnamed, pairs, Site.head))
    assert found.shape != kept.shape or not torch.equal(found, kept)


@pytest.mark.parametrize("damage", ["cut off", "a bit", "another shape"])
def test_a_damaged_file_is_named_and_computed_again(damage, caplog):
    lm = dataclasses.replace(tiny_lm("llama"), fingerprint="tiny llama, seed 0")
    expected = mean_difference(lm, contrasts(), Site.head)
    (path,) = cache.cache_folder().rglob("*.safetensors")
    whole = path.read_bytes()
    if damage == "cut off":
        path.write_bytes(whole[:100])
    elif damage == "a bit":
        flip(path)
    else:
        save_file({name: tensor[:1].clone() for name, tensor in load_file(path).items()}, path)
    assert torch.equal(mean_difference(lm, contrasts(), Site.head), expected)
    (told,) = (message for message in caplog.messages if "made again" in message)
    assert told.startswith(f"{path}: not what was written")
    assert path.read_bytes() == whole


def test_swapping_the_answers_turns_the_sign(lm):
    pairs = contrasts()
    swapped = [EncodedContrast(p.prompt, p.negative, p.positive, p.doc_id) for p in pairs]
    found = mean_difference(lm, pairs, Site.neuron)
    torch.testing.assert_close(mean_difference(lm, swapped, Site.neuron), -found, rtol=0, atol=1e-6)
    assert found.abs().max() > 1e-3


def test_the_activations_of_a_pass_are_not_kept(llama, monkeypatch):
    """However many pairs there are, those of the pass before the last are gone."""
    monkeypatch.setattr(activations, "TOKENS_PER_PASS", 1)
    own, references, alive = activations._read, [], []

    def watched(*args):
        found = own(*args)
        references.append(weakref.ref(found[Site.head.value]))
        alive.append(sum(reference() is not None for reference in references))
        return found

    monkeypatch.setattr(activations, "_read", watched)
    mean_difference(llama, contrasts(8), Site.head)
    assert len(alive) == 8
    assert max(alive) <= 2
