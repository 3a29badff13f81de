"""Last-token activations of pairs, batched, equal those read one sequence at a time."""

import weakref

import pytest
import torch

from cases import contrasts, in_rows, pair_rows, tiny_lm
from sadi_bench.models.families import Site
from sadi_bench.steering import activations
from sadi_bench.steering.activations import EncodedContrast, mean_difference, pair_activations
from slow_loop import mean_difference as slow_mean_difference

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
        for number, both in zip(numbers, values, strict=True):
            ((_, alone),) = pair_activations(llama, [pairs[number]], Site.head)
            torch.testing.assert_close(both, alone[0], rtol=0, atol=1e-5)


def test_swapping_the_answers_turns_the_sign(lm):
    pairs = contrasts()
    swapped = [EncodedContrast(p.prompt, p.negative, p.positive, p.doc_id) for p in pairs]
    found = mean_difference(lm, pairs, Site.neuron)
    torch.testing.assert_close(mean_difference(lm, swapped, Site.neuron), -found, rtol=0, atol=1e-6)
    assert found.abs().max() > 1e-3


def test_the_activations_of_a_pass_are_not_kept(llama, monkeypatch):
    """However many pairs there are, those of the pass before the last are gone."""
    monkeypatch.setattr(activations, "TOKENS_PER_PASS", 1)
    own, references, alive = activations.pair_activations, [], []

    def watched(*args):
        for numbers, values in own(*args):
            references.append(weakref.ref(values))
            alive.append(sum(reference() is not None for reference in references))
            yield numbers, values
            del values

    monkeypatch.setattr(activations, "pair_activations", watched)
    mean_difference(llama, contrasts(8), Site.head)
    assert len(alive) == 8
    assert max(alive) <= 2
