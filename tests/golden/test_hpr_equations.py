"""HPR (arXiv 2409.10053) re-derived in NumPy on recorded activations."""

import math

import numpy as np
import pytest
import torch
from scipy.special import erf, expit

from cases import contrasts, requests_for, tiny_lm
from departing import departing
from sadi_bench.errors import SettingError
from sadi_bench.scoring.choices import score_choices
from sadi_bench.steering.methods.hpr import Hpr
from sadi_bench.steering.rotation import Recipe, fit_angles, fit_probes, turn
from slow_loop import run_once, score_edited

LAYERS, WIDTH, PAIRS = 3, 32, 11
TOP_KS, STRENGTHS = [1, 3], [0.0, 0.5, 1.0]
LONG = {"epochs": 200}  # else a dozen steps leave every angle near its first


def residuals(model, tokens) -> np.ndarray:
    """Read what leaves each block at the last token off a plain forward: [layer width]."""
    _, layers = run_once(model.network, tokens, "hidden", "residual")
    return np.stack([layer[-1].numpy().astype(np.float64) for layer in layers])


def recorded(model, pairs) -> np.ndarray:
    """Record all pairs: [pair side layer width]."""
    return np.stack(
        [[residuals(model, p.prompt + side) for side in (p.positive, p.negative)] for p in pairs]
    )


def predicted(tensors, slot: int, x: np.ndarray) -> np.ndarray:
    """f(x) = π sigmoid(MLP(x)) of the network in a slot: x [row width], GELU between layers."""
    for depth in range(4):
        weights = tensors[f"angle_weights_{depth}"][slot].numpy().astype(np.float64)
        if depth:
            x = x * (1 + erf(x / math.sqrt(2))) / 2
        x = x @ weights.T + tensors[f"angle_biases_{depth}"][slot].numpy()
    return math.pi * expit(x[:, 0])


def turned(x: np.ndarray, w: np.ndarray, gamma1: float) -> np.ndarray:
    """x' = (sin γ1 / sin γ2) x_r + (sin(γ2 - γ1) / sin γ2) x, if wᵀx < 0."""
    if w @ x >= 0:
        return x
    x_r = x - 2 * w * (w @ x) / (w @ w)
    gamma2 = math.acos((x @ x_r) / (np.linalg.norm(x) * np.linalg.norm(x_r)))
    return (math.sin(gamma1) * x_r + math.sin(gamma2 - gamma1) * x) / math.sin(gamma2)


def adam(gradient, start: np.ndarray, batches, rate: float) -> np.ndarray:
    """Adam (arXiv 1412.6980), a gradient a batch."""
    x, m, v = start.copy(), 0.0, 0.0
    for t, batch in enumerate(batches, 1):
        g = gradient(x, batch)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x -= rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return x


def batches(count: int, size: int, epochs: int, seed: int) -> list[np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    shuffled = [torch.randperm(count, generator=generator).numpy() for _ in range(epochs)]
    return [order[i : i + size] for order in shuffled for i in range(0, count, size)]


@pytest.mark.parametrize(("epochs", "seed"), [(1, 0), (5, 3)])
def test_probes_minimise_the_binary_cross_entropy_without_a_bias(epochs, seed):
    found = recorded(tiny_lm("llama"), contrasts(PAIRS))
    activations = torch.tensor(found, dtype=torch.float32)
    probes = fit_probes(activations, Recipe(5e-4, epochs, 16, seed))
    examples, labels = found.reshape(2 * PAIRS, LAYERS, WIDTH), np.tile([1.0, 0.0], PAIRS)
    for layer in range(LAYERS):

        def gradient(w, batch, x=examples[:, layer]):
            return x[batch].T @ (expit(x[batch] @ w) - labels[batch]) / len(batch)

        steps = batches(2 * PAIRS, 16, epochs, seed)
        expected = adam(gradient, np.zeros(WIDTH), steps, 5e-4)
        np.testing.assert_allclose(probes[layer], expected, atol=1e-6)


def test_networks_learn_the_angle_to_the_positive_partner():
    found = recorded(tiny_lm("llama"), contrasts(PAIRS))
    networks = fit_angles(torch.tensor(found, dtype=torch.float32), Recipe(5e-4, 400, 16, 0))
    tensors = {f"angle_weights_{i}": w for i, (w, _) in enumerate(networks)}
    tensors |= {f"angle_biases_{i}": b for i, (_, b) in enumerate(networks)}
    assert [tuple(w.shape) for w, _ in networks] == [
        (LAYERS, 16, 32), (LAYERS, 8, 16), (LAYERS, 4, 8), (LAYERS, 1, 4)
    ]  # fmt: skip
    for layer in range(LAYERS):
        positive, negative = found[:, 0, layer], found[:, 1, layer]
        norms = np.linalg.norm(positive, axis=1) * np.linalg.norm(negative, axis=1)
        wanted = np.arccos((positive * negative).sum(axis=1) / norms)
        errors = predicted(tensors, layer, negative) - wanted
        assert np.sqrt((errors**2).mean()) < 0.5 * wanted.std()


def fitted(model, **settings):
    return Hpr(**{"top_k": TOP_KS, "strength": STRENGTHS, **LONG, **settings}).fit(
        model, contrasts(PAIRS)
    )


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "bloom"])
def test_what_the_probe_calls_negative_is_turned_by_the_predicted_angle(name):
    model = tiny_lm(name)
    steering = fitted(model)
    tensors, ranks = steering.tensors(), steering.tensors()["layer_ranks"].flatten().tolist()
    queries = recorded(model, contrasts(8, seed=5)).reshape(16, LAYERS, WIDTH)
    grid = [(0, 0.0), *((k, s) for k in TOP_KS for s in STRENGTHS)]
    turns = 0
    for layer in range(LAYERS):
        values = torch.tensor(queries[:, layer], dtype=torch.float32)
        values = values[None, None].expand(1, len(grid), -1, -1)
        edited = steering.edit(layer, values, torch.arange(len(grid)))
        found = values if edited is None else edited
        w = tensors["probes"][layer].numpy().astype(np.float64)
        gamma = predicted(tensors, ranks[layer], queries[:, layer])
        for cell, (top_k, strength) in enumerate(grid):
            for node, x in enumerate(queries[:, layer]):
                expected = x
                if ranks[layer] < top_k and strength:
                    expected = turned(x, w, strength * gamma[node])
                np.testing.assert_allclose(found[0, cell, node], expected, atol=2e-4)
                turns += expected is not x
    assert 0 < turns < 16 * LAYERS * 4


def test_layers_are_ranked_by_validation_accuracy_and_ties_by_place():
    found = recorded(tiny_lm("llama"), contrasts(PAIRS))
    steering = fitted(tiny_lm("llama"), seed=4)
    order = torch.randperm(PAIRS, generator=torch.Generator().manual_seed(4)).tolist()
    validation, training = found[order[:3]], torch.tensor(found[order[3:]]).float()
    probes = fit_probes(training, Recipe(5e-4, 200, 16, 4)).double().numpy()
    margins = np.einsum("pslw,lw->psl", validation, probes)
    accuracy = ((margins >= 0) == np.array([True, False])[:, None]).mean(axis=(0, 1))
    best = sorted(range(LAYERS), key=lambda layer: (-accuracy[layer], layer))
    assert [(layer, 0) for layer in best] == [element[:2] for element in steering.elements()]
    np.testing.assert_allclose([e[2] for e in steering.elements()], accuracy[best], atol=1e-6)


def test_the_length_is_kept_also_in_the_plane_and_along_the_normal():
    normal = torch.zeros(4)
    normal[0] = 1.0
    values = torch.tensor([[-3.0, 4, 0, 0], [0, 2, 1, 0], [-2, 0, 0, 0], [-1e-20, 5, 5, 5]])
    for angle in (0.0, 0.3, 1.5, math.pi):
        found = turn(values, normal, torch.full((4,), angle))
        torch.testing.assert_close(found[[0, 1, 3]].norm(dim=1), values[[0, 1, 3]].norm(dim=1))
        assert found.isfinite().all()
    mirrored = turn(values[:1], normal, torch.tensor([2 * math.atan2(3, 4)]))
    torch.testing.assert_close(mirrored, torch.tensor([[3.0, 4, 0, 0]]))


@pytest.mark.parametrize("name", ["llama", "gemma3", "bloom"])
def test_a_strength_of_zero_is_the_unsteered_model(name):
    model = tiny_lm(name)
    steering = fitted(model, strength=[0, 1])
    assert [steering.first_layer(cell) for cell in (0, 1, 3)] == [LAYERS] * 3
    assert steering.first_layer(2) == steering.elements()[0][0]
    assert steering.first_layer(4) == 0
    moved = 0.0
    for scores in score_choices(model, requests_for(name), steering):
        for cell in (1, 3):
            np.testing.assert_array_equal(scores.logprobs[:, cell], scores.logprobs[:, 0])
        moved = max(moved, abs(scores.logprobs[:, 4] - scores.logprobs[:, 0]).max())
    assert moved > 0.01


@pytest.mark.parametrize("reach", ["last_prompt", "from_last_prompt"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "gemma3"])
def test_turned_residuals_score_as_one_sequence_at_a_time(name, reach):
    model, requests = tiny_lm(name), requests_for(name)
    steering = fitted(model, strength=[0.5, 1.0], reach=reach)
    tensors, ranks = steering.tensors(), steering.tensors()["layer_ranks"].flatten().tolist()
    for request, scores in zip(requests, score_choices(model, requests, steering), strict=True):
        for cell in steering.cells[1:]:

            def edit(layer, values, end, cell=cell.params):
                if ranks[layer] >= cell["top_k"]:
                    return values
                stop = end + 1 if reach == "last_prompt" else len(values)
                x = values[end:stop].numpy().astype(np.float64)
                w = tensors["probes"][layer].numpy().astype(np.float64)
                gamma = cell["strength"] * predicted(tensors, ranks[layer], x)
                rows = [turned(row, w, g) for row, g in zip(x, gamma, strict=True)]
                values[end:stop] = torch.tensor(np.stack(rows))
                return values

            expected = score_edited(model.network, request.prompt, request.answers, edit)
            np.testing.assert_allclose(scores.logprobs[:, cell.index], expected[0], atol=2e-4)
            assert scores.greedy[:, cell.index].tolist() == expected[1]


def test_half_precision_is_turned_in_float32_and_what_is_positive_is_not_touched():
    steering = fitted(tiny_lm("llama"), top_k=3, strength=1.0)
    values = torch.randn(2, 2, 3, WIDTH, generator=torch.Generator().manual_seed(0)).bfloat16()
    for layer in range(LAYERS):
        found = steering.edit(layer, values, torch.tensor([0, 1]))
        assert found.dtype == torch.bfloat16
        positive = values.float() @ steering.probes[layer] >= 0
        assert torch.equal(found[positive], values[positive])
        assert torch.equal(found[:, 0], values[:, 0])
        lengths = found.float().norm(dim=-1) / values.float().norm(dim=-1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=5e-3)
        assert not torch.equal(found[:, 1], values[:, 1])


def test_the_seed_decides_all_that_is_learnt():
    model = tiny_lm("llama")
    state = torch.get_rng_state()
    first, again, other = (
        Hpr(top_k=3, seed=seed).fit(model, contrasts(PAIRS)).tensors() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["angle_weights_0"], other["angle_weights_0"])
    assert torch.equal(torch.get_rng_state(), state)


def test_few_pairs_hold_out_one_and_a_single_one_is_refused():
    assert [len(part) for part in Hpr().split(2)] == [1, 1]
    assert [len(part) for part in Hpr().split(10)] == [8, 2]
    message = r"val_ratio=0\.2: of task\.n_pairs=1 it leaves none .* both classes; .*n_pairs=2"
    with pytest.raises(SettingError, match=message):
        Hpr(top_k=1).fit(tiny_lm("llama"), contrasts(1))


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, r"method\.top_k=0: choose a whole number of at least 1"),
        ({"strength": float("nan")}, r"method\.strength=nan: choose a finite number"),
        ({"strength": [1, 1.0]}, r"method\.strength=\[1, 1\.0\]: .*none twice"),
        ({"epochs": 0}, r"method\.epochs=0: choose a whole number of at least 1\."),
        ({"epochs": [1, 2]}, r"method\.epochs=\[1, 2\]: choose a whole number"),
        ({"batch_size": 2.5}, r"method\.batch_size=2\.5: choose a whole number"),
        ({"learning_rate": 0}, r"method\.learning_rate=0: choose a number above 0\."),
        ({"val_ratio": 1}, r"method\.val_ratio=1: choose a number above 0 and below 1"),
        ({"reach": "all_tokens"}, r"method\.reach=all_tokens: choose one of last_prompt, from"),
        ({"seed": -1}, r"method\.seed=-1: choose a whole number"),
    ],
)
def test_an_hpr_setting_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(SettingError, match=message) as caught:
        Hpr(**settings)
    assert "\n" not in str(caught.value)


def test_more_layers_than_there_are_is_refused_with_the_bound():
    message = r"method\.top_k=4: llama has 3 layers; choose at most 3\."
    with pytest.raises(SettingError, match=message):
        Hpr(top_k=[1, 4]).fit(tiny_lm("llama"), contrasts(PAIRS))


def test_departures_from_the_publication_are_named():
    found = departing("hpr", epochs=9, reach="last_prompt")
    assert found == ["epochs=9", "reach=last_prompt"]
