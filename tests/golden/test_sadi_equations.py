"""Equations 1 to 6 of arXiv 2410.12299, re-derived in NumPy on recorded activations."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cases import contrasts, tiny_lm
from sadi_bench.steering.methods.sadi import Sadi

TOP_KS, STRENGTHS = [1, 3, 7], [0.5, 4.0]
# Site → the module that carries it, whether its input is meant, and elements a layer.
PLACES = {
    "head": ("self_attn.o_proj", True, 4),
    "neuron": ("mlp.act_fn", False, 48),
    "hidden": ("mlp", False, 32),
}


def record(model, tokens, site) -> np.ndarray:
    """Read the last token's activations off a plain forward: [layer width]."""
    path, is_input, _ = PLACES[site]
    rows, handles = [], []

    def note(_module, args, output):
        values = args[0] if is_input else output
        rows.append(values[0, -1].numpy().astype(np.float64))

    for block in model.network.model.layers:
        handles.append(block.get_submodule(path).register_forward_hook(note))
    try:
        with torch.no_grad():
            model.network(input_ids=torch.tensor([list(tokens)]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return np.stack(rows)


def mean_difference(model, pairs, site) -> np.ndarray:
    """Equations 1 and 2: D = mean over pairs of A+ - A-, layers stacked."""
    return np.mean(
        [
            record(model, p.prompt + p.positive, site) - record(model, p.prompt + p.negative, site)
            for p in pairs
        ],
        axis=0,
    )


def mask_of(difference, elements, top_k, score) -> np.ndarray:
    """Equation 3: 1 on the K largest of all layers together, widened to coordinates."""
    per_element = difference.reshape(len(difference), elements, -1)
    scores = per_element.mean(axis=2)
    if score == "abs":
        scores = abs(scores)
    best = np.argsort(-scores.ravel(), kind="stable")[:top_k]
    mask = np.zeros(scores.size)
    mask[best] = 1
    return np.repeat(mask.reshape(scores.shape), per_element.shape[2], axis=1)


@pytest.mark.parametrize("vector", ["adaptive", "fixed"])
@pytest.mark.parametrize("score", ["signed", "abs"])
@pytest.mark.parametrize("site", PLACES)
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_an_edit_is_the_papers(name, site, score, vector):
    model, pairs = tiny_lm(name), contrasts()
    difference = mean_difference(model, pairs, site)
    method = Sadi(site=site, score=score, vector=vector, patch="inflight",
                  top_k=TOP_KS, strength=STRENGTHS)  # fmt: skip
    intervention = method.fit(model, pairs)
    np.testing.assert_allclose(intervention.difference, difference, atol=1e-5)

    query = record(model, (9, 8, 7, 6), site)  # A_q, equation 4
    grid = [(0, 1.0), *((k, s) for k in TOP_KS for s in STRENGTHS)]
    cells = torch.arange(len(grid))
    for layer in range(3):
        values = torch.tensor(query[layer], dtype=torch.float32).expand(1, len(grid), 1, -1)
        edited = intervention.edit(layer, values, cells)
        found = values if edited is None else edited
        for cell, (top_k, strength) in enumerate(grid):
            delta = strength - 1
            mask = mask_of(difference, PLACES[site][2], top_k, score)[layer]
            moved = query[layer] if vector == "adaptive" else difference[layer]
            expected = query[layer] + delta * (moved * mask)  # equation 5, or 6
            np.testing.assert_allclose(found[0, cell, 0], expected, atol=1e-4)
            if top_k == 0:
                assert torch.equal(found[0, cell, 0], values[0, cell, 0])


@pytest.mark.parametrize("site", PLACES)
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_fixed_norm_moves_along_d_as_far_as_the_adaptive_vector_does(name, site):
    """A' = A + δ c (D ⊙ mask), c = ‖A ⊙ mask‖ / ‖D ⊙ mask‖, at each of two positions by itself."""
    model, pairs = tiny_lm(name), contrasts()
    difference = mean_difference(model, pairs, site)
    strengths = [-2.0, 4.0]
    method = Sadi(site=site, vector="fixed_norm", patch="inflight", top_k=TOP_KS,
                  strength=strengths)  # fmt: skip
    intervention = method.fit(model, pairs)
    queries = np.stack([record(model, tokens, site) for tokens in ((9, 8, 7), (5, 4))], axis=1)
    grid = [(0, 1.0), *((k, s) for k in TOP_KS for s in strengths)]
    for layer in range(3):
        values = torch.tensor(queries[layer], dtype=torch.float32).expand(1, len(grid), 2, -1)
        edited = intervention.edit(layer, values, torch.arange(len(grid)))
        found = (values if edited is None else edited).double().numpy()[0]
        for cell, (top_k, strength) in enumerate(grid):
            mask = mask_of(difference, PLACES[site][2], top_k, "signed")[layer]
            for node, query in enumerate(queries[layer]):
                moved = found[cell, node] - query
                own, its = np.linalg.norm(query * mask), np.linalg.norm(difference[layer] * mask)
                scale = own / its if mask.any() else 0
                expected = (strength - 1) * scale * difference[layer] * mask
                np.testing.assert_allclose(moved, expected, atol=1e-4)
                length = abs(strength - 1) * own
                assert np.linalg.norm(moved) == pytest.approx(length, abs=1e-4)


def test_fixed_norm_leaves_alone_what_no_difference_points_from():
    """Elements of random masks may have no difference at all; 0 / 0 is no number."""
    model = tiny_lm("llama")
    intervention = Sadi(vector="fixed_norm", top_k=12, strength=4.0).fit(model, contrasts())
    nothing = torch.zeros_like(intervention.difference)
    intervention = replace(intervention, difference=nothing)
    values = torch.ones(1, 1, 1, 32)
    assert torch.equal(intervention.edit(0, values, torch.tensor([1])), values)


@pytest.mark.parametrize("site", PLACES)
def test_clean_starts_from_the_unsteered_values(site):
    """The released code: what flows by is overwritten first, in layers without a mask as well."""
    model, pairs = tiny_lm("llama"), contrasts()
    difference = mean_difference(model, pairs, site)
    intervention = Sadi(site=site, patch="clean", top_k=2, strength=4.0).fit(model, pairs)
    clean = record(model, (9, 8, 7, 6), site)
    mask = mask_of(difference, PLACES[site][2], 2, "signed")
    for layer in range(3):
        values = torch.tensor(clean[layer], dtype=torch.float32)[None, None, None]
        found = intervention.edit(layer, values, torch.tensor([0, 1]))
        if found is None:  # no mask here: all cells keep the unsteered values
            assert not mask[layer].any()
            continue
        np.testing.assert_allclose(found[0, 0, 0], clean[layer], atol=1e-6)
        expected = clean[layer] * (1 + 3 * mask[layer])
        np.testing.assert_allclose(found[0, 1, 0], expected, atol=1e-4)
