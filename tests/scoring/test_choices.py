"""Scores don't depend on how prompts and cells are put into passes."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from cases import assert_same, contrasts, in_rows, requests_for, tiny_lm
from sadi_bench.errors import SettingError
from sadi_bench.models import logits
from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.scoring import batch, choices
from sadi_bench.scoring.choices import ChoiceRequest, cell_groups, score_choices, split_groups
from sadi_bench.steering.intervention import UNSTEERED, UNSTEERED_MODEL, Cell, Reach
from sadi_bench.steering.methods.sadi import MaskedSteering, Sadi

LAYOUTS = {"packed": lambda: tiny_lm("llama"), "rows": lambda: in_rows(tiny_lm("llama")),
           "alibi": lambda: tiny_lm("bloom"), "window": lambda: tiny_lm("gemma3")}  # fmt: skip
GRID = {"top_k": [1, 3, 6], "strength": [-2.0, 1.0, 4.0]}


@pytest.fixture(params=LAYOUTS)
def model(request) -> LanguageModel:
    return LAYOUTS[request.param]()


def fitted(model: LanguageModel, **settings) -> MaskedSteering:
    return Sadi(**{**GRID, "patch": "inflight", **settings}).fit(model, contrasts())


def passes_of(model: LanguageModel, score: Callable) -> list[tuple[int, ...]]:
    """Shapes of the token ids of every pass that `score` makes."""
    shapes = []

    def note(_module, _args, kwargs) -> None:
        shapes.append(tuple(kwargs["input_ids"].shape))

    handle = model.backbone.register_forward_pre_hook(note, with_kwargs=True)
    try:
        score()
    finally:
        handle.remove()
    return shapes


def test_ragged_prompts_together_equal_each_alone(model):
    intervention, requests = fitted(model), requests_for(model.name)
    together = score_choices(model, requests, intervention)
    alone = [score_choices(model, [request], intervention)[0] for request in requests]
    assert_same(together, alone)


def test_results_come_in_the_order_of_the_requests(model):
    intervention, requests = fitted(model), requests_for(model.name)
    expected = score_choices(model, requests, intervention)
    for order in ([1, 0, 2], [2, 1, 0, 2, 2]):
        found = score_choices(model, [requests[i] for i in order], intervention)
        assert_same(found, [expected[i] for i in order])


def test_answers_of_one_prompt_do_not_touch_each_other(model):
    intervention, requests = fitted(model, reach="from_last_prompt"), requests_for(model.name)
    together = score_choices(model, requests, intervention)
    for choice in range(4):
        lone = [ChoiceRequest(r.prompt, (r.answers[choice],)) for r in requests]
        for all_, one in zip(together, score_choices(model, lone, intervention), strict=True):
            np.testing.assert_allclose(one.logprobs[0], all_.logprobs[choice], atol=1e-5, rtol=0)
            np.testing.assert_array_equal(one.greedy[0], all_.greedy[choice])


@pytest.mark.parametrize("patch", ["clean", "inflight"])
def test_a_token_budget_of_one_prompt_a_pass_changes_nothing(model, patch):
    intervention, requests = fitted(model, patch=patch), requests_for(model.name)
    large, small = [], []
    wide = passes_of(model, lambda: large.extend(score_choices(model, requests, intervention)))
    narrow = passes_of(model, lambda: small.extend(score_choices(model, requests, intervention, 1)))
    assert len(narrow) > len(wide)
    assert_same(small, large)


@pytest.mark.parametrize("patch", ["clean", "inflight"])
def test_cells_in_several_passes_equal_cells_in_one(model, patch, monkeypatch):
    intervention, requests = fitted(model, patch=patch), requests_for(model.name)
    expected, split = score_choices(model, requests, intervention), []
    monkeypatch.setattr(choices, "cell_groups", lambda *_: [[0, 1], [0, 3, 4], [0, 6, 7, 9]])
    monkeypatch.setattr(batch, "PACKED_NODES", 1)
    passes = passes_of(model, lambda: split.extend(score_choices(model, requests, intervention)))
    assert len(passes) > 4
    assert_same(split, expected)


class FromTheBottom(MaskedSteering):
    """Runs every layer for every cell."""

    def first_layer(self, cell: int) -> int:  # noqa: ARG002
        return 0


@pytest.mark.parametrize("patch", ["clean", "inflight"])
def test_skipping_the_layers_below_the_first_edit_changes_nothing(model, patch):
    intervention = fitted(model, patch=patch)
    # The best elements of cell K=1 in the last layer, of K=3 in the last two, of K=6 in all.
    places = {(2, 1): 0, (1, 0): 1, (1, 3): 2, (0, 2): 3, (0, 1): 4, (2, 2): 5}
    ranks = torch.arange(6, 18).reshape(3, 4)
    others = iter(range(6, 12))
    for layer in range(3):
        for head in range(4):
            ranks[layer, head] = places[layer, head] if (layer, head) in places else next(others)
    fields = {f.name: getattr(intervention, f.name) for f in dataclasses.fields(MaskedSteering)
              if f.init}  # fmt: skip
    skipping = MaskedSteering(**{**fields, "ranks": ranks})
    whole = FromTheBottom(**{**fields, "ranks": ranks})
    assert [skipping.first_layer(cell) for cell in range(10)] == [3, 2, 3, 2, 1, 3, 1, 0, 3, 0]
    assert [whole.first_layer(cell) for cell in range(10)] == [0] * 10
    requests = requests_for(model.name)
    expected = score_choices(model, requests, whole)
    assert_same(score_choices(model, requests, skipping), expected)
    assert max(np.abs(s.logprobs[:, 1] - s.logprobs[:, 0]).max() for s in expected) > 0.01


def test_layers_below_the_first_edit_run_one_copy_only(llama):
    """With edits in the last layer alone, no steered copy enters the layers before it."""
    intervention = fitted(llama)
    last_first = torch.arange(12).reshape(3, 4).flip(0)
    steering = dataclasses.replace(intervention, ranks=last_first, cells=intervention.cells[:4])
    requests = requests_for("llama", (9,))
    widths: dict[int, list[int]] = {0: [], 2: []}
    handles = [
        llama.network.model.layers[layer].self_attn.register_forward_pre_hook(
            lambda _m, _a, kwargs, layer=layer: widths[layer].append(
                kwargs["hidden_states"].shape[1]
            ),
            with_kwargs=True,
        )
        for layer in widths
    ]
    try:
        score_choices(llama, requests, steering)
    finally:
        for handle in handles:
            handle.remove()
    nodes, prefix = 3, 8
    assert sorted(set(widths[0])) == [nodes, prefix]
    assert max(widths[2]) > prefix


def starting_at(*layers: int) -> MaskedSteering:
    """An intervention on 30 layers of one element; cell i edits from layers[i - 1] on."""
    ranks = torch.arange(30)[:, None].flip(0)
    cells = [Cell(i, {"top_k": 30 - layer, "strength": 2.0}) for i, layer in enumerate(layers, 1)]
    scores = torch.zeros(30, 1)
    return MaskedSteering(
        site=Site.head,
        reach=Reach.last_prompt,
        cells=(UNSTEERED, *cells),
        ranks=ranks,
        scores=scores,
        difference=scores,
    )


def test_cells_that_start_late_get_a_pass_of_their_own_where_it_pays():
    two_passes = starting_at(*[2] * 20, *[25] * 18)
    assert cell_groups(two_passes, 30) == [[0, *range(1, 21)], [0, *range(21, 39)]]
    assert cell_groups(starting_at(*[25] * 18, 2), 30) == [[0, 19], [0, *range(1, 19)]]
    one_late_cell = starting_at(*[2] * 20, 5)
    assert cell_groups(one_late_cell, 30) == [[0, *range(1, 22)]]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_vocabulary_in_chunks_gives_the_same_scores(llama, monkeypatch, rows):
    intervention, requests = fitted(llama), requests_for("llama")
    expected = score_choices(llama, requests, intervention)
    monkeypatch.setitem(logits.LOGITS_AT_ONCE, "cpu", rows * 128)
    monkeypatch.setattr(logits, "LOGITS_IN_CACHE", 128)
    assert_same(score_choices(llama, requests, intervention), expected)


def test_no_intervention_is_a_grid_of_one_cell(model):
    requests = requests_for(model.name)
    for found, steered in zip(
        score_choices(model, requests, UNSTEERED_MODEL),
        score_choices(model, requests, fitted(model)),
        strict=True,
    ):
        assert found.logprobs.shape == (4, 1)
        np.testing.assert_allclose(found.logprobs[:, 0], steered.logprobs[:, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("patch", ["clean", "inflight"])
def test_strength_one_is_the_unsteered_model_bit_by_bit(lm, dtype, patch):
    typed = tiny_lm(lm.name, dtype)
    for site in ("head", "neuron", "hidden"):
        intervention = fitted(typed, patch=patch, site=site)
        ones = [c.index for c in intervention.cells[1:] if c.params["strength"] == 1.0]
        for scores in score_choices(typed, requests_for(lm.name), intervention):
            assert scores.finite.all()
            for cell in ones:
                np.testing.assert_array_equal(scores.logprobs[:, cell], scores.logprobs[:, 0])
                np.testing.assert_array_equal(scores.greedy[:, cell], scores.greedy[:, 0])


@pytest.mark.parametrize("strength", [0.0, 0.9, 1.1, -1.0])
def test_any_other_strength_of_the_top_element_changes_every_answer(lm, strength):
    """Also of answers with several tokens: the edit is at the prompt's last token, not at -1."""
    for patch in ("clean", "inflight"):
        intervention = fitted(lm, top_k=1, strength=strength, score="abs", patch=patch)
        for scores in score_choices(lm, requests_for(lm.name), intervention):
            assert (scores.logprobs[:, 1] != scores.logprobs[:, 0]).all()


def test_a_prompt_longer_than_the_context_is_refused(llama):
    fits = ChoiceRequest((5,) * 510, ((6, 7, 8), (6,)))  # of the last answer token nothing is fed
    score_choices(llama, [fits], UNSTEERED_MODEL)
    longer = ChoiceRequest((5,) * 511, ((6,), (6, 7, 8)))
    with pytest.raises(SettingError, match=r"llama.* 513 tokens, the context 512.*task\.fewshot"):
        score_choices(llama, [fits, longer], UNSTEERED_MODEL)


def test_every_part_of_a_group_of_cells_begins_with_cell_0_and_none_is_lost_or_empty():
    assert split_groups([[0, 1, 2, 3, 4, 5], [0, 6]], 2) == [[0, 1, 2], [0, 3, 4], [0, 5], [0, 6]]
    assert split_groups([[0, 1, 2, 3, 4, 5]], 4) == [[0, 1, 2, 3, 4], [0, 5]]
    assert split_groups([[0]], 3) == [[0]]
    assert split_groups([[0, 1, 2]], 0) == [[0, 1], [0, 2]]
