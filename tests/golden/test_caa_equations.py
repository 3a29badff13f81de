"""CAA (arXiv 2312.06681) re-derived in NumPy on recorded activations."""

import numpy as np
import pytest
import torch

from cases import contrasts, requests_for, tiny_lm
from departing import departing
from sadi_bench.errors import SettingError
from sadi_bench.scoring.choices import score_choices
from sadi_bench.steering.intervention import UNSTEERED
from sadi_bench.steering.methods.caa import Caa
from slow_loop import run_once, score_document

LAYERS, WIDTH = 3, 32
MULTIPLIERS = [-2.0, 0.0, 0.5]


def residuals(model, tokens) -> np.ndarray:
    """Read what leaves each block at the last token off a plain forward: [layer width]."""
    _, layers = run_once(model.network, tokens, "hidden", "residual")
    return np.stack([layer[-1].numpy().astype(np.float64) for layer in layers])


def vectors(model, pairs) -> np.ndarray:
    """v_l = mean of a_l(x, y+) - a_l(x, y-): [layer width]."""
    return np.mean(
        [
            residuals(model, p.prompt + p.positive) - residuals(model, p.prompt + p.negative)
            for p in pairs
        ],
        axis=0,
    )


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "bloom"])
def test_one_layer_is_moved_by_a_multiple_of_its_vector(name):
    model, pairs = tiny_lm(name), contrasts()
    vector = vectors(model, pairs)
    fitted = Caa(multiplier=MULTIPLIERS).fit(model, pairs)
    query = residuals(model, (9, 8, 7, 6))
    grid = [(None, 0.0), *((at, times) for at in range(LAYERS) for times in MULTIPLIERS)]
    assert len(fitted.cells) == len(grid)
    for layer in range(LAYERS):
        values = torch.tensor(query[layer], dtype=torch.float32).expand(1, len(grid), 1, -1)
        found = fitted.edit(layer, values, torch.arange(len(grid)))
        for cell, (at, times) in enumerate(grid):
            if at == layer and times:
                expected = query[layer] + times * vector[layer]
                np.testing.assert_allclose(found[0, cell, 0], expected, atol=1e-4)
            else:
                assert torch.equal(found[0, cell, 0], values[0, cell, 0])


def test_a_layer_of_no_cell_in_the_pass_is_left_alone():
    fitted = Caa(layer=[0, 2], multiplier=[0, 1]).fit(tiny_lm("llama"), contrasts())
    values = torch.ones(1, 3, 2, WIDTH)
    edits = [fitted.edit(layer, values, torch.tensor([0, 1, 4])) for layer in range(LAYERS)]
    assert [edit is None for edit in edits] == [True, True, False]


@pytest.mark.parametrize("name", ["llama", "gemma3", "bloom"])
def test_a_multiplier_of_zero_is_the_unsteered_model(name):
    model = tiny_lm(name)
    fitted = Caa(layer=[1, 2], multiplier=[0, 1.5]).fit(model, contrasts())
    assert [fitted.first_layer(cell) for cell in range(5)] == [LAYERS, LAYERS, 1, LAYERS, 2]
    for scores in score_choices(model, requests_for(name), fitted):
        for cell in (1, 3):
            np.testing.assert_array_equal(scores.logprobs[:, cell], scores.logprobs[:, 0])
        for cell in (2, 4):
            assert abs(scores.logprobs[:, cell] - scores.logprobs[:, 0]).max() > 0.01


@pytest.mark.parametrize("reach", ["last_prompt", "from_last_prompt"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "gemma3"])
def test_shifted_residuals_score_as_one_sequence_at_a_time(name, reach):
    model, pairs, requests = tiny_lm(name), contrasts(), requests_for(name)
    vector = torch.tensor(vectors(model, pairs))[..., None]
    fitted = Caa(multiplier=[-2, 0.5], reach=reach).fit(model, pairs)
    assert len(fitted.cells) == 1 + 2 * LAYERS
    for request, scores in zip(requests, score_choices(model, requests, fitted), strict=True):
        for cell in fitted.cells[1:]:
            whole = [(cell.params["layer"], column) for column in range(WIDTH)]
            logprobs, greedy, _ = score_document(
                model.network, request.prompt, request.answers, whole,
                cell.params["multiplier"] + 1, "hidden", "inflight", "residual", reach, vector,
            )  # fmt: skip
            np.testing.assert_allclose(scores.logprobs[:, cell.index], logprobs, atol=1e-4)
            assert scores.greedy[:, cell.index].tolist() == greedy
            moved = abs(scores.logprobs[:, cell.index] - scores.logprobs[:, 0]).max()
            assert moved > 0.01, cell


@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_cell_alone_scores_as_among_all_others(layer):
    """Alone, its pass starts at its layer and takes what enters there from the unsteered run."""
    model, requests = tiny_lm("llama"), requests_for("llama")
    alone = Caa(layer=layer, multiplier=1.0).fit(model, contrasts())
    among = Caa(multiplier=1.0).fit(model, contrasts())
    assert alone.first_layer(1) == layer
    assert among.cells[1 + layer].params == alone.cells[1].params
    pairs = zip(*(score_choices(model, requests, each) for each in (alone, among)), strict=True)
    for one, all_ in pairs:
        np.testing.assert_allclose(one.logprobs[:, 1], all_.logprobs[:, 1 + layer], atol=1e-4)


def test_the_default_reach_adds_to_the_answers_tokens_too():
    model, requests = tiny_lm("llama"), requests_for("llama")
    default, every, once = (
        score_choices(model, requests, method.fit(model, contrasts()))[0].logprobs[1]
        for method in (
            Caa(multiplier=1.0),
            Caa(multiplier=1.0, reach="from_last_prompt"),
            Caa(multiplier=1.0, reach="last_prompt"),
        )
    )
    np.testing.assert_array_equal(default, every)
    assert abs(default - once)[1:].max() > 0.01


def test_half_precision_is_moved_in_float32_and_cast_back_once():
    fitted = Caa(layer=1, multiplier=0.37).fit(tiny_lm("llama"), contrasts())
    values = torch.randn(2, 1, 3, WIDTH, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = fitted.edit(1, values, torch.tensor([1]))
    assert found.dtype == torch.bfloat16
    expected = (values.float() + torch.tensor(0.37) * fitted.difference[1]).bfloat16()
    assert torch.equal(found, expected)


def test_layers_are_listed_by_the_length_of_their_vector():
    model, pairs = tiny_lm("llama"), contrasts()
    lengths = np.sqrt((vectors(model, pairs) ** 2).sum(axis=1))
    fitted = Caa(layer=0).fit(model, pairs)
    order = sorted(range(LAYERS), key=lambda layer: -lengths[layer])
    assert [(layer, 0) for layer in order] == [element[:2] for element in fitted.elements()]
    np.testing.assert_allclose([e[2] for e in fitted.elements()], lengths[order], atol=1e-4)
    assert list(fitted.tensors()) == ["mean_difference"]
    np.testing.assert_allclose(
        fitted.tensors()["mean_difference"], vectors(model, pairs), atol=1e-5
    )


def test_the_grid_is_the_unsteered_cell_and_every_layer_with_every_multiplier():
    cells = Caa(layer=None, multiplier=[1, -1.0]).grid(2)
    assert cells[0] == UNSTEERED
    points = [(cell.params["layer"], cell.params["multiplier"]) for cell in cells[1:]]
    assert points == [(0, 1), (0, -1.0), (1, 1), (1, -1.0)]
    assert Caa(layer=[1, 0], multiplier=1.0).grid(9)[1].params == {"layer": 1, "multiplier": 1.0}
    assert [cell.params["layer"] for cell in Caa(layer=0, multiplier=1.0).grid(9)[1:]] == [0]


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": -1}, r"method\.layer=-1: choose a whole number of at least 0\."),
        ({"layer": 1.5}, r"method\.layer=1\.5: choose a whole number of at least 0\."),
        ({"layer": "first"}, r"method\.layer=first: choose a whole number of at least 0, or a"),
        ({"layer": True}, r"method\.layer=True: "),
        ({"layer": []}, r"method\.layer=\[\]: list at least one value"),
        ({"layer": [1, 1]}, r"method\.layer=\[1, 1\]: .*none twice"),
        ({"multiplier": None}, r"method\.multiplier=None: choose a finite number"),
        ({"multiplier": [1, float("inf")]}, r"method\.multiplier=inf: "),
        ({"reach": "all"}, r"method\.reach=all: choose one of last_prompt, from_last_prompt"),
    ],
)
def test_a_caa_setting_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(SettingError, match=message) as caught:
        Caa(**settings)
    assert "\n" not in str(caught.value)


def test_a_layer_beyond_the_last_is_refused_with_the_bound():
    Caa(layer=2).fit(tiny_lm("llama"), contrasts())
    message = r"method\.layer=3: llama has 3 layers, counted from 0; choose at most 2\."
    with pytest.raises(SettingError, match=message):
        Caa(layer=[0, 3]).fit(tiny_lm("llama"), contrasts())


def test_departures_from_the_publication_are_named():
    def departures(**settings):
        return departing("caa", **settings)

    assert departures() == departures(layer=[2], multiplier=[2.0]) == []
    assert departures(reach="last_prompt") == ["reach=last_prompt"]
