"""ITI (arXiv 2306.03341) re-derived in NumPy and scikit-learn on recorded activations."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from cases import contrasts, requests_for, tiny_lm
from departing import departing
from sadi_bench.errors import SettingError
from sadi_bench.scoring.choices import score_choices
from sadi_bench.steering.methods import iti
from sadi_bench.steering.methods.iti import Iti
from slow_loop import run_once, score_document

LAYERS, HEADS, PAIRS = 3, 4, 11
TOP_KS, ALPHAS = [1, 3, 7], [-2.0, 0.0, 5.0]


def head_outputs(model, tokens) -> np.ndarray:
    """Read the last token's head outputs off a plain forward: [layer head head_dim]."""
    _, layers = run_once(model.network, tokens, "head", "mlp_out")
    rows = np.stack([layer[-1].numpy().astype(np.float64) for layer in layers])
    return rows.reshape(LAYERS, HEADS, -1)


def recorded(model, pairs) -> np.ndarray:
    """Record all pairs: [pair side layer head head_dim]."""
    return np.stack(
        [[head_outputs(model, p.prompt + side) for side in (p.positive, p.negative)] for p in pairs]
    )


def probe_of(found, layer, head, val_ratio, seed) -> tuple[float, np.ndarray]:
    """Train on the pairs behind the first fifth of a shuffle; return accuracy and weights."""
    order = np.random.RandomState(seed).permutation(len(found))
    held_out = int(np.ceil(val_ratio * len(found)))
    sides = found[:, :, layer, head]
    validation, training = sides[order[:held_out]], sides[order[held_out:]]
    probe = LogisticRegression(max_iter=1000)
    labels = [1] * len(training) + [0] * len(training)
    probe.fit(np.concatenate([training[:, 0], training[:, 1]]), labels)
    correct = [*(probe.predict(validation[:, 0]) == 1), *(probe.predict(validation[:, 1]) == 0)]
    return float(np.mean(correct)), probe.coef_[0]


def derived(model, pairs, direction="mass_mean", val_ratio=0.2, seed=0):
    """Return every head's accuracy, θ and σ, and the heads best first."""
    found = recorded(model, pairs)
    accuracy, theta, sigma = {}, {}, {}
    for layer, head in np.ndindex(LAYERS, HEADS):
        accuracy[layer, head], weights = probe_of(found, layer, head, val_ratio, seed)
        one = found[:, :, layer, head]
        vector = weights if direction == "probe" else one[:, 0].mean(0) - one[:, 1].mean(0)
        theta[layer, head] = vector / np.sqrt((vector**2).sum())
        projected = one.reshape(2 * len(pairs), -1) @ theta[layer, head]
        sigma[layer, head] = np.sqrt(((projected - projected.mean()) ** 2).mean())
    best = sorted(accuracy, key=lambda place: (-accuracy[place], place))
    return accuracy, theta, sigma, best


@pytest.mark.parametrize("direction", ["mass_mean", "probe"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3"])
def test_a_head_is_moved_by_alpha_sigma_theta(name, direction):
    model, pairs = tiny_lm(name), contrasts(PAIRS)
    _, theta, sigma, best = derived(model, pairs, direction)
    fitted = Iti(top_k=TOP_KS, alpha=ALPHAS, direction=direction).fit(model, pairs)
    query = head_outputs(model, (9, 8, 7, 6))
    grid = [(0, 0.0), *((k, alpha) for k in TOP_KS for alpha in ALPHAS)]
    for layer in range(LAYERS):
        values = torch.tensor(query[layer].ravel(), dtype=torch.float32)
        values = values.expand(1, len(grid), 1, -1)
        edited = fitted.edit(layer, values, torch.arange(len(grid)))
        found = (values if edited is None else edited)[0, :, 0].unflatten(-1, (HEADS, -1))
        for cell, (top_k, alpha) in enumerate(grid):
            for head in range(HEADS):
                place = layer, head
                if place in best[:top_k] and alpha:
                    expected = query[place] + alpha * sigma[place] * theta[place]
                    np.testing.assert_allclose(found[cell, head], expected, atol=1e-4)
                else:
                    np.testing.assert_array_equal(found[cell, head], query[place].astype("f4"))


@pytest.mark.parametrize(("val_ratio", "seed"), [(0.2, 0), (0.2, 5), (0.4, 1)])
def test_heads_are_ranked_by_validation_accuracy_and_ties_by_place(val_ratio, seed):
    model, pairs = tiny_lm("llama"), contrasts(PAIRS)
    accuracy, _, _, best = derived(model, pairs, val_ratio=val_ratio, seed=seed)
    assert len(set(accuracy.values())) < len(accuracy)  # there are ties to break
    fitted = Iti(top_k=2, val_ratio=val_ratio, seed=seed).fit(model, pairs)
    assert [element[:2] for element in fitted.elements()] == best
    for layer, head, score in fitted.elements():
        assert score == pytest.approx(accuracy[layer, head])


def test_what_was_learnt_is_stored_with_theta_of_length_one():
    fitted = Iti(top_k=2).fit(tiny_lm("gemma3"), contrasts(PAIRS))
    shapes = {name: tuple(tensor.shape) for name, tensor in fitted.tensors().items()}
    assert shapes == {
        "directions": (3, 4, 12),
        "deviations": (3, 4),
        "probe_accuracies": (3, 4),
        "element_ranks": (3, 4),
    }
    torch.testing.assert_close(fitted.directions.norm(dim=-1), torch.ones(3, 4))


def test_whole_pairs_are_held_out_and_the_seed_says_which():
    training, validation = Iti().split(PAIRS)
    assert (len(training), len(validation)) == (8, 3)
    assert sorted([*training, *validation]) == list(range(PAIRS))
    assert Iti(seed=1).split(PAIRS) != (training, validation)
    assert len(Iti(val_ratio=0.28).split(25)[1]) == 7  # in floats the product is above 7


@pytest.mark.parametrize("name", ["llama", "gemma3", "bloom"])
def test_an_alpha_of_zero_is_the_unsteered_model(name):
    model = tiny_lm(name)
    fitted = Iti(top_k=[1, 12], alpha=[0, 8]).fit(model, contrasts(PAIRS))
    assert [fitted.first_layer(cell) for cell in (0, 1, 3)] == [LAYERS] * 3
    assert fitted.first_layer(2) == fitted.elements()[0][0]
    assert fitted.first_layer(4) == 0
    for scores in score_choices(model, requests_for(name), fitted):
        for cell in (1, 3):
            np.testing.assert_array_equal(scores.logprobs[:, cell], scores.logprobs[:, 0])
        assert abs(scores.logprobs[:, 4] - scores.logprobs[:, 0]).max() > 0.01


@pytest.mark.parametrize("reach", ["last_prompt", "from_last_prompt"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "gemma3"])
def test_shifted_heads_score_as_one_sequence_at_a_time(name, reach):
    model, pairs, requests = tiny_lm(name), contrasts(PAIRS), requests_for(name)
    _, theta, sigma, best = derived(model, pairs)
    shift = {place: torch.tensor(sigma[place] * theta[place]) for place in best}
    fitted = Iti(top_k=[1, 5], alpha=[-3, 8], reach=reach).fit(model, pairs)
    for request, scores in zip(requests, score_choices(model, requests, fitted), strict=True):
        for cell in fitted.cells[1:]:
            logprobs, greedy, _ = score_document(
                model.network, request.prompt, request.answers, best[: cell.params["top_k"]],
                cell.params["alpha"] + 1, "head", "inflight", reach=reach, delta_vector=shift,
            )  # fmt: skip
            np.testing.assert_allclose(scores.logprobs[:, cell.index], logprobs, atol=1e-4)
            assert scores.greedy[:, cell.index].tolist() == greedy
        assert abs(scores.logprobs[:, -1] - scores.logprobs[:, 0]).max() > 0.01


def test_the_default_reach_steers_the_answers_tokens_too():
    model, requests = tiny_lm("llama"), requests_for("llama")
    ways = [{}, {"reach": "from_last_prompt"}, {"reach": "last_prompt"}]
    fits = (Iti(top_k=4, **way).fit(model, contrasts(PAIRS)) for way in ways)
    default, every, once = (score_choices(model, requests, fit)[0].logprobs[1] for fit in fits)
    np.testing.assert_array_equal(default, every)
    assert abs(default - once)[1] > 0.01


def test_half_precision_is_shifted_in_float32_and_cast_back_once():
    fitted = Iti(top_k=12, alpha=0.37).fit(tiny_lm("llama"), contrasts(PAIRS))
    values = torch.randn(2, 1, 3, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = fitted.edit(1, values, torch.tensor([1]))
    shift = (fitted.directions[1] * fitted.deviations[1, :, None]).flatten()
    assert found.dtype == torch.bfloat16
    expected = (values.float() + 0.37 * shift).bfloat16()
    assert (found == expected).float().mean() > 0.99  # the order of products may tip a rounding


def test_probes_that_do_not_converge_are_used_without_a_warning():
    heads = np.random.default_rng(0).normal(size=(30, 2, 1, 40)) * np.logspace(0, 6, 40)
    flat, labels = heads.reshape(60, 40), [1, 0] * 30
    with pytest.warns(ConvergenceWarning):
        LogisticRegression(max_iter=1000).fit(flat, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        accuracy, weights = iti.probe_heads(heads, range(30), range(30))
    assert 0.5 < accuracy[0] <= 1 and weights.shape == (1, 40)


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, r"method\.top_k=0: choose a whole number of at least 1"),
        ({"alpha": float("nan")}, r"method\.alpha=nan: choose a finite number"),
        ({"alpha": [1, 1.0]}, r"method\.alpha=\[1, 1\.0\]: .*none twice"),
        ({"val_ratio": 0}, r"method\.val_ratio=0: choose a number above 0 and below 1"),
        ({"val_ratio": 1.0}, r"method\.val_ratio=1\.0: "),
        ({"val_ratio": "half"}, r"method\.val_ratio=half: "),
        ({"direction": "pca"}, r"method\.direction=pca: choose one of mass_mean, probe"),
        ({"reach": "all"}, r"method\.reach=all: choose one of last_prompt, from_last_prompt"),
        ({"seed": -1}, r"method\.seed=-1: choose a whole number"),
    ],
)
def test_an_iti_setting_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(SettingError, match=message) as caught:
        Iti(**settings)
    assert "\n" not in str(caught.value)


def test_more_heads_than_there_are_names_all_three_numbers():
    Iti(top_k=12).fit(tiny_lm("gemma3"), contrasts(PAIRS))
    message = r"method\.top_k=13: gemma3 has 3 layers × 4 heads = 12 heads; choose at most 12\."
    with pytest.raises(SettingError, match=message):
        Iti(top_k=[1, 13]).fit(tiny_lm("gemma3"), contrasts(PAIRS))


@pytest.mark.parametrize(
    ("count", "val_ratio", "message"),
    [
        (2, 0.2, r"=0\.2: of task\.n_pairs=2 it leaves 1 to train .*at least task\.n_pairs=3"),
        (10, 0.9, r"=0\.9: of task\.n_pairs=10 it leaves 1 .*method\.val_ratio of at most 0\.8,"),
    ],
)
def test_too_few_pairs_to_train_probes_on_are_refused(count, val_ratio, message):
    with pytest.raises(SettingError, match=r"method\.val_ratio" + message):
        Iti(top_k=1, val_ratio=val_ratio).fit(tiny_lm("llama"), contrasts(count))


def test_the_remedy_for_too_few_pairs_is_one():
    assert [len(part) for part in Iti(val_ratio=0.2).split(3)] == [2, 1]
    assert [len(part) for part in Iti(val_ratio=0.8).split(10)] == [2, 8]
    assert [len(part) for part in Iti(val_ratio=0.333).split(3)] == [2, 1]


def test_departures_from_the_publication_are_named():
    def departures(**settings):
        return departing("iti", **settings)

    assert departures() == departures(top_k=[3], alpha=[2.0], seed=4) == []
    assert departures(direction="probe") == ["direction=probe"]
    assert departures(reach="last_prompt") == ["reach=last_prompt"]
    assert departures(val_ratio=0.5) == ["val_ratio=0.5"]
