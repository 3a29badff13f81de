"""TDA (arXiv 2408.11393) re-derived in NumPy on recorded activations."""

import numpy as np
import pytest
import torch

from cases import contrasts, in_rows, requests_for, tiny_lm
from departing import departing
from sadi_bench.errors import SettingError
from sadi_bench.scoring.choices import score_choices
from sadi_bench.steering.intervention import ReadsPrompts
from sadi_bench.steering.methods import method_of
from sadi_bench.steering.methods.tda import Tda
from slow_loop import run_once, score_edited

LAYERS, UNITS = 3, 48
THRESHOLDS = [0.0, 0.6, 1.2]


def quiet_units(model, prompt, threshold) -> list[np.ndarray]:
    """Find the units below threshold × the mean length over the tokens before the last."""
    _, layers = run_once(model.network, prompt, "neuron", "mlp_out")
    found = []
    for layer in layers:
        lengths = np.sqrt((layer[:-1].numpy().astype(np.float64) ** 2).sum(axis=0))
        found.append(lengths < threshold * lengths.mean())
    return found


def fitted(**settings):
    return Tda(**{"threshold": THRESHOLDS, **settings}).fit(tiny_lm("llama"), contrasts())


def compare(model) -> float:
    steering, requests, moved = fitted(), requests_for(model.name), 0.0
    for request, scores in zip(requests, score_choices(model, requests, steering), strict=True):
        for cell in steering.cells[1:]:
            quiet = quiet_units(model, request.prompt, cell.params["threshold"])

            def edit(layer, values, end, quiet=quiet):
                values[end:, torch.tensor(quiet[layer])] = 0
                return values

            expected = score_edited(
                model.network, request.prompt, request.answers, edit, "neuron", "mlp_out"
            )
            found = scores.logprobs[:, cell.index]
            np.testing.assert_allclose(found, expected[0], atol=1e-4, rtol=0)
            assert scores.greedy[:, cell.index].tolist() == expected[1]
            moved = max(moved, abs(found - scores.logprobs[:, 0]).max())
    return moved


def test_quiet_units_are_off_as_in_one_sequence_at_a_time(lm):
    assert compare(lm) > 0.01


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_rows_are_masked_as_a_packed_tree_is(name):
    assert compare(in_rows(tiny_lm(name))) > 0.01


def test_scores_are_lengths_over_the_tokens_before_the_last_and_no_padding():
    values = torch.randn(4, 5, UNITS, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([5, 3, 2, 1])
    real = torch.arange(5) < lengths[:, None]
    found = fitted().read(1, values, real)
    for row, length in enumerate(lengths.tolist()):
        expected = np.sqrt((values[row, : length - 1].double().numpy() ** 2).sum(axis=0))
        np.testing.assert_allclose(found[row], expected, atol=1e-6)


def test_units_below_a_part_of_the_layers_mean_are_set_to_zero_and_others_stay():
    scores = torch.tensor([[0.0, 1.0, 2.0, 5.0], [0.0, 0.0, 0.0, 0.0]])[:, None]
    values = torch.randn(2, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    steering = fitted(threshold=[0.4, 1.5]).bound({2: scores})
    found = steering.edit(2, values, torch.tensor([0, 1, 2]))
    assert torch.equal(found[:, 0], values[:, 0])
    off = (found == 0).all(dim=2)
    assert off[0].tolist() == [[False] * 4, [True, False, False, False], [True] * 3 + [False]]
    assert not off[1].any()  # of one token: nothing was heard, nothing is below it
    assert torch.equal(found[~off[:, :, None].expand_as(found)],
                       values[~off[:, :, None].expand_as(values)])  # fmt: skip
    assert steering.edit(2, values, torch.tensor([0])) is None
    assert steering.edit(1, values, torch.tensor([0, 1, 2])) is None


@pytest.mark.parametrize("name", ["llama", "gemma3", "bloom"])
def test_a_threshold_of_zero_is_the_unsteered_model(name):
    model, steering = tiny_lm(name), fitted()
    assert [steering.first_layer(cell) for cell in range(4)] == [LAYERS, LAYERS, 0, 0]
    for scores in score_choices(model, requests_for(name), steering):
        np.testing.assert_array_equal(scores.logprobs[:, 1], scores.logprobs[:, 0])


def test_a_prompt_of_one_token_has_no_mask():
    model = tiny_lm("llama")
    steering = fitted()
    (scores,) = score_choices(model, requests_for("llama", (1,)), steering)
    for cell in (2, 3):
        np.testing.assert_allclose(scores.logprobs[:, cell], scores.logprobs[:, 0], atol=1e-5)
    assert scores.measured["ffn_sparsity"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("budget", [None, 1])
def test_the_sparsity_reached_is_told_of_every_prompt(budget):
    model, requests, steering = tiny_lm("gpt2"), requests_for("gpt2"), fitted()
    found = score_choices(model, requests, steering, budget)
    for request, scores in zip(requests, found, strict=True):
        expected = [np.mean(quiet_units(model, request.prompt, cell)) for cell in [0, *THRESHOLDS]]
        np.testing.assert_allclose(scores.measured["ffn_sparsity"], expected, atol=1e-6)
    assert 0 < expected[2] <= expected[3] < 1 or len(request.prompt) == 1
    assert steering.tensors() == {}  # what was scored is not what was learnt


def test_it_is_a_control_that_reads_prompts():
    method = method_of({"kind": "tda", "name": "mine"})
    assert method.control and departing("tda") == []
    steering = method.fit(tiny_lm("llama"), contrasts())
    assert isinstance(steering, ReadsPrompts)
    assert steering.elements() == []


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (-0.5, r"method\.threshold=-0\.5: choose a number of at least 0"),
        ([0.5, "half"], r"method\.threshold=half: choose a finite number"),
        ([], r"method\.threshold=\[\]: list at least one value"),
        ([1, 1.0], r"method\.threshold=\[1, 1\.0\]: .*none twice"),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused(threshold, message):
    with pytest.raises(SettingError, match=message) as caught:
        Tda(threshold=threshold)
    assert "\n" not in str(caught.value)
