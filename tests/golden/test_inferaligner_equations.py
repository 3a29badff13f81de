"""InferAligner (arXiv 2401.11206) re-derived in NumPy on recorded activations."""

import dataclasses

import numpy as np
import pytest
import torch

from cases import contrasts, in_rows, merging_tokenizer, requests_for, tiny_lm
from departing import departing
from sadi_bench.errors import SettingError
from sadi_bench.models import loading
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.loading import Models, resolved
from sadi_bench.models.spec import ModelSpec
from sadi_bench.scoring.choices import ChoiceRequest, score_choices
from sadi_bench.steering.methods.inferaligner import GatedShift, InferAligner
from slow_loop import run_once, score_edited
from tiny import build

LAYERS, WIDTH, PAIRS = 3, 32, 11
GRID = {"top_k": [1, 2], "alpha": [-1.0, 0.0, 0.5]}


def residuals(model, tokens) -> np.ndarray:
    """Read what leaves each block at the last token off a plain forward: [layer width]."""
    _, layers = run_once(model.network, tokens, "hidden", "residual")
    return np.stack([layer[-1].numpy().astype(np.float64) for layer in layers])


def recorded(model, pairs) -> np.ndarray:
    """Record all pairs: [pair side layer width]."""
    return np.stack(
        [[residuals(model, p.prompt + side) for side in (p.positive, p.negative)] for p in pairs]
    )


def derived(model, pairs, gate="prompts"):
    """Return s, b, the gates' accuracies on the pairs, θ of the model itself, and best layers."""
    found = recorded(model, pairs)
    positive, negative = found[:, 0].mean(axis=0), found[:, 1].mean(axis=0)
    s = negative - positive
    midway = -((positive + negative) / 2 * s).sum(axis=1)
    margins = np.einsum("pslw,lw->psl", found, s) + midway
    accuracy = ((margins > 0) == np.array([False, True])[:, None]).mean(axis=(0, 1))
    b = midway
    if gate == "prompts":
        prompts = np.stack([residuals(model, pair.prompt) for pair in pairs])
        b = -np.median(np.einsum("plw,lw->pl", prompts, s), axis=0)
    best = sorted(range(LAYERS), key=lambda layer: (-accuracy[layer], layer))
    return s, b, accuracy, positive - negative, best


@pytest.fixture(scope="module")
def guide(tmp_path_factory) -> str:
    """Another llama of the same shape, in a folder."""
    folder = tmp_path_factory.mktemp("models") / "guide"
    build("llama", seed=7).save_pretrained(folder)
    tiny_lm("llama").tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("gate", ["prompts", "answers"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "bloom"])
def test_gates_and_vectors_are_the_papers(name, gate):
    model, pairs = tiny_lm(name), contrasts(PAIRS)
    s, b, accuracy, theta, best = derived(model, pairs, gate)
    fitted = InferAligner(gate=gate, **GRID).fit(model, pairs)
    found = fitted.tensors()
    np.testing.assert_allclose(found["gate_directions"], s, atol=1e-5)
    np.testing.assert_allclose(found["gate_offsets"], b, atol=1e-4)
    np.testing.assert_allclose(found["guidance"], theta, atol=1e-5)
    assert [(layer, 0) for layer in best] == [element[:2] for element in fitted.elements()]
    np.testing.assert_allclose([e[2] for e in fitted.elements()], accuracy[best], atol=1e-6)


def test_a_gate_judges_each_prompts_last_token_and_no_padding():
    model, pairs = tiny_lm("llama"), contrasts(PAIRS)
    s, b, *_ = derived(model, pairs)
    fitted = InferAligner(**GRID).fit(model, pairs)
    values = torch.randn(5, 4, WIDTH, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([4, 1, 2, 4, 3])
    real = torch.arange(4) < lengths[:, None]
    for layer in range(LAYERS):
        query = values[range(5), lengths - 1].double().numpy()
        expected = query @ s[layer] + b[layer] > 0
        assert fitted.read(layer, values, real)[:, 0].tolist() == expected.tolist()


def test_an_open_gate_adds_alpha_theta_and_a_shut_one_nothing():
    model, pairs = tiny_lm("llama"), contrasts(PAIRS)
    *_, theta, best = derived(model, pairs)
    fitted = InferAligner(**GRID).fit(model, pairs)
    gates = torch.tensor([1.0, 0.0])[:, None, None]
    bound = fitted.bound(dict.fromkeys(range(LAYERS), gates))
    values = torch.randn(2, 1, 3, WIDTH, generator=torch.Generator().manual_seed(0))
    values = values.expand(-1, 7, -1, -1)
    for layer in range(LAYERS):
        edited = bound.edit(layer, values, torch.arange(7))
        found = values if edited is None else edited
        assert torch.equal(found[1], values[1])
        for cell in fitted.cells:
            shift = np.zeros(WIDTH)
            if cell.index and layer in best[: cell.params["top_k"]]:
                shift = cell.params["alpha"] * theta[layer]
            expected = values[0, cell.index].numpy() + shift
            np.testing.assert_allclose(found[0, cell.index], expected, atol=1e-5)


def compare(model, **settings) -> tuple[float, set[bool]]:
    """Score all cells both ways; return how far they moved and which gates there were."""
    pairs = contrasts(PAIRS, seed=6)  # no prompt of theirs is asked: it may be the very median
    requests = [*requests_for(model.name), *requests_for(model.name, (14, 3), seed=2)]
    s, b, _, theta, best = derived(model, pairs, settings.get("gate", "prompts"))
    fitted = InferAligner(**GRID, **settings).fit(model, pairs)
    moved, gates = 0.0, set()
    reach = settings.get("reach", "all_tokens")
    for request, scores in zip(requests, score_choices(model, requests, fitted), strict=True):
        queries = residuals(model, request.prompt)
        opened = (queries * s).sum(axis=1) + b > 0
        gates |= set(opened.tolist())
        assert scores.finite.all()
        for cell in fitted.cells[1:]:

            def edit(layer, values, end, cell=cell.params, opened=opened):
                if layer in best[: cell["top_k"]] and opened[layer]:
                    spans = {
                        "all_tokens": slice(None),
                        "from_last_prompt": slice(end, None),
                        "last_prompt": slice(end, end + 1),
                    }
                    values[spans[reach]] += torch.tensor(cell["alpha"] * theta[layer]).float()
                return values

            expected = score_edited(model.network, request.prompt, request.answers, edit)
            found = scores.logprobs[:, cell.index]
            np.testing.assert_allclose(found, expected[0], atol=1e-4, rtol=0)
            assert scores.greedy[:, cell.index].tolist() == expected[1]
            moved = max(moved, abs(found - scores.logprobs[:, 0]).max())
    return moved, gates


def test_all_tokens_score_as_one_sequence_at_a_time(lm):
    moved, gates = compare(lm)
    assert moved > 0.01
    assert gates == {True, False}


@pytest.mark.parametrize("reach", ["last_prompt", "from_last_prompt"])
@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_other_reaches_score_as_one_sequence_at_a_time(name, reach):
    assert compare(tiny_lm(name), reach=reach)[0] > 0.01


@pytest.mark.parametrize("name", ["llama", "opt", "gpt_neox"])
def test_all_tokens_in_rows_score_as_one_sequence_at_a_time(name):
    assert compare(in_rows(tiny_lm(name)))[0] > 0.01


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_neither_budget_nor_company_changes_the_scores(name):
    model, requests = tiny_lm(name), requests_for(name)
    fitted = InferAligner(**GRID).fit(model, contrasts(PAIRS))
    together = score_choices(model, requests, fitted)
    for request, expected in zip(requests, together, strict=True):
        (alone,) = score_choices(model, [request], fitted, 1)
        np.testing.assert_allclose(alone.logprobs, expected.logprobs, atol=1e-5, rtol=0)


def test_an_alpha_of_zero_is_the_unsteered_model():
    model = tiny_lm("llama")
    fitted = InferAligner(**GRID).fit(model, contrasts(PAIRS))
    assert [fitted.first_layer(cell) for cell in (0, 2, 5)] == [LAYERS] * 3
    for scores in score_choices(model, requests_for("llama"), fitted):
        for cell in (2, 5):
            np.testing.assert_array_equal(scores.logprobs[:, cell], scores.logprobs[:, 0])


class FirstTokenAlone(GatedShift):
    """Shift only the tree's root: the first token of a prompt."""

    def edit(self, layer, values, cells):
        new = super().edit(layer, values, cells)
        return None if new is None else torch.cat([new[:, :, :1], values[:, :, 1:]], dim=2)


def test_a_prompt_that_leaves_the_number_range_is_marked():
    """Though no answer stands at the prompt's own tokens."""
    model = tiny_lm("llama")
    fitted = InferAligner(top_k=1, layers=1, alpha=[3e38, 0.5]).fit(model, contrasts(PAIRS))
    fields = {f.name: getattr(fitted, f.name) for f in dataclasses.fields(fitted) if f.init}
    fields |= {"offsets": torch.full((LAYERS,), 1e6), "guidance": torch.full((LAYERS, WIDTH), 9.0)}
    request = ChoiceRequest((5, 6, 7, 8), ((9,), (10, 11)))
    (scores,) = score_choices(model, [request], FirstTokenAlone(**fields))
    assert scores.finite.tolist() == [True, False, True]


def test_the_share_of_open_gates_is_measured():
    model, requests = tiny_lm("llama"), requests_for("llama")
    fitted = InferAligner(**GRID).fit(model, contrasts(PAIRS))
    found = score_choices(model, requests, fitted)
    s, b, _, _, best = derived(model, contrasts(PAIRS))
    opened = np.stack([(residuals(model, r.prompt) * s).sum(axis=1) + b > 0 for r in requests])
    for shares, scores in zip(opened, found, strict=True):
        one, two = shares[best[0]], shares[best[:2]].mean()
        np.testing.assert_allclose(scores.measured["gate_open"], [0, one, 0, one, two, 0, two])
    assert len({tuple(shares) for shares in opened}) > 1
    assert "gate_open" not in fitted.tensors()


def test_a_guide_gives_the_vectors_and_the_model_keeps_its_gates(guide):
    model, pairs = tiny_lm("llama"), contrasts(PAIRS)
    fitted = InferAligner(guide=guide, **GRID).fit(model, pairs)
    s, b, _, own, _ = derived(model, pairs)
    theta = derived(LanguageModel("guide", build("llama", seed=7), model.tokenizer), pairs)[3]
    np.testing.assert_allclose(fitted.guidance, theta, atol=1e-5)
    assert abs(theta - own).max() > 0.1
    np.testing.assert_allclose(fitted.directions, s, atol=1e-5)
    np.testing.assert_allclose(fitted.offsets, b, atol=1e-4)


def test_a_guide_stands_beside_the_model_and_leaves_memory(guide, monkeypatch):
    own = resolved(ModelSpec(pretrained=guide, name="mine", device="cpu", dtype="float32"))
    models, left = Models(), []
    model, free = models.load(own), loading.free
    monkeypatch.setattr(loading, "free", lambda second: (left.append(second), free(second)))
    InferAligner(guide=guide, top_k=1).fit(model, contrasts(PAIRS))
    assert models.load(own) is model
    assert all(parameter.numel() for parameter in model.network.parameters())
    assert [sum(p.numel() for p in second.network.parameters()) for second in left] == [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 2}, r"guide: it has 2 layers, llama has 3; .*same architecture"),
        ({"hidden_size": 64}, r"guide: it has 64 coordinates, llama has 32; "),
    ],
)
def test_a_guide_of_another_shape_is_refused(change, message, tmp_path):
    config = tiny_lm("llama").network.config
    other = type(config)(**{**config.to_dict(), **change})
    type(tiny_lm("llama").network)(other).save_pretrained(tmp_path / "guide")
    tiny_lm("llama").tokenizer.save_pretrained(tmp_path / "guide")
    with pytest.raises(SettingError, match=r"method\.guide=" + message) as caught:
        InferAligner(guide=str(tmp_path / "guide"), top_k=1).fit(tiny_lm("llama"), contrasts())
    assert "\n" not in str(caught.value)


def test_a_guide_with_other_words_is_refused(tmp_path):
    tiny_lm("llama").network.save_pretrained(tmp_path / "guide")
    merging_tokenizer().save_pretrained(tmp_path / "guide")
    with pytest.raises(SettingError, match=r"method\.guide=guide: its tokenizer has another voc"):
        InferAligner(guide=str(tmp_path / "guide"), top_k=1).fit(tiny_lm("llama"), contrasts())


def test_a_guide_that_is_not_there_is_refused_by_the_name_of_its_setting(tmp_path):
    with pytest.raises(SettingError, match=r"method\.guide=/.*/absent: no such folder; set method"):
        InferAligner(guide=str(tmp_path / "absent"), top_k=1).fit(tiny_lm("llama"), contrasts())


def test_layers_can_be_limited_to_some():
    pairs = contrasts(PAIRS)
    fitted = InferAligner(layers=[2, 1], top_k=[1, 2], alpha=1.0).fit(tiny_lm("llama"), pairs)
    assert {layer for layer, *_ in fitted.elements()[:2]} == {1, 2}
    assert fitted.first_layer(2) == 1


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, r"method\.top_k=0: choose a whole number of at least 1"),
        ({"top_k": 4}, r"method\.top_k=4: llama has 3 layers to choose from; choose at most 3\."),
        ({"layers": [0], "top_k": 2}, r"method\.top_k=2: llama has 1 layers? to choose from; "),
        ({"layers": 3}, r"method\.layers=3: llama has 3 layers, counted from 0; .*most 2\."),
        ({"layers": [1, -1]}, r"method\.layers=-1: choose a whole number of at least 0\."),
        ({"alpha": float("inf")}, r"method\.alpha=inf: choose a finite number"),
        ({"guide": " "}, r"method\.guide=' ': name a folder or a hub model, or null"),
        ({"gate": "open"}, r"method\.gate=open: choose one of prompts, answers"),
        ({"reach": "every"}, r"method\.reach=every: choose one of all_tokens, last_prompt, from"),
    ],
)
def test_a_setting_of_inferaligner_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(SettingError, match=message) as caught:
        InferAligner(**{"top_k": 1, **settings}).fit(tiny_lm("llama"), contrasts(PAIRS))
    assert "\n" not in str(caught.value)


def test_without_a_guide_it_is_called_what_it_is():
    def departures(**settings):
        return departing("inferaligner", **settings)

    assert departures() == ["guide=itself: gated CAA"]
    assert departures(guide="a/b") == []
    assert departures(guide="a/b", reach="last_prompt") == ["reach=last_prompt"]
