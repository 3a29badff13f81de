"""Prompts that stand in the trees, and prompts that are read before anything is edited."""

import dataclasses

import numpy as np
import pytest
import torch

from cases import contrasts, in_rows, requests_for, tiny_lm
from sadi_bench.models.layout import layout_of
from sadi_bench.models.packing import run_branches, run_prefix
from sadi_bench.scoring.batch import ChoiceRequest
from sadi_bench.scoring.choices import _nodes, score_choices
from sadi_bench.scoring.prompts import bound_to, run_prompts
from sadi_bench.steering.intervention import ReadsPrompts
from sadi_bench.steering.methods.inferaligner import InferAligner
from sadi_bench.steering.methods.sadi import Sadi
from sadi_bench.steering.methods.tda import Tda
from slow_loop import run_once

PROMPTS = [(11, 12, 13, 14), (21,), (31, 32)]
ANSWERS = [[(4, 5, 6), (4, 5), (4, 7), (8,)], [(4,), (9, 9)], [(5, 6, 7, 8), (5, 6)]]
LAYOUTS = {"packed": lambda: tiny_lm("llama"), "rows": lambda: in_rows(tiny_lm("llama")),
           "alibi": lambda: tiny_lm("bloom"), "window": lambda: tiny_lm("gemma3"),
           "flat": lambda: tiny_lm("opt")}  # fmt: skip


@pytest.fixture(params=LAYOUTS)
def model(request):
    return LAYOUTS[request.param]()


@pytest.mark.parametrize("packed", [True, False])
def test_a_whole_prompt_begins_every_branch_and_paths_begin_at_its_end(packed):
    layout = layout_of(PROMPTS, ANSWERS, packed=packed, whole=True)
    for i, (prompt, branches) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        for branch, path in zip(branches, layout.paths[i], strict=True):
            assert layout.tokens[i, path].tolist() == [prompt[-1], *branch[:-1]]
            seen = layout.sees[i, path[-1]].nonzero().flatten()
            assert layout.tokens[i, seen].tolist() == [*prompt, *branch[:-1]]
            assert layout.depths[i, seen].tolist() == list(range(len(seen)))


@pytest.mark.parametrize("packed", [True, False])
def test_a_pass_is_planned_with_the_prompts_in_its_trees(packed):
    prompt, answers = (1, 2, 3, 4), ((5, 6, 7), (8, 9, 7), (5,))
    trees = layout_of([prompt], [answers], packed=packed, whole=True)
    planned = _nodes(ChoiceRequest(prompt, answers), whole=True, packed=packed)
    assert (planned, trees.shape[1]) == ((8, 8) if packed else (14, 18))  # rows are padded
    assert _nodes(ChoiceRequest(prompt, answers), whole=False, packed=packed) == 5


def test_whole_prompts_give_the_states_that_a_prefix_gives(model):
    with torch.inference_mode():
        whole = layout_of(PROMPTS, ANSWERS, packed=model.packs, whole=True)
        empty = run_prefix(model, [prompt[:1] for prompt in PROMPTS])
        states = run_branches(model, empty, whole, 2)
        split = layout_of(PROMPTS, ANSWERS, packed=model.packs)
        expected = run_branches(model, run_prefix(model, PROMPTS), split, 2)
    for i, (paths, their_paths) in enumerate(zip(whole.paths, split.paths, strict=True)):
        for path, their_path in zip(paths, their_paths, strict=True):
            torch.testing.assert_close(
                states[i, :, path], expected[i, :, their_path], rtol=0, atol=1e-5
            )


def test_a_prefix_that_ran_the_last_token_too_hides_it_from_the_branches(model):
    layout = layout_of(PROMPTS, ANSWERS, packed=model.packs)
    with torch.inference_mode():
        states = [
            run_branches(model, run_prefix(model, PROMPTS, with_last=with_last), layout, 2)
            for with_last in (False, True)
        ]
    for i, paths in enumerate(layout.paths):
        for path in paths:
            torch.testing.assert_close(states[0][i, :, path], states[1][i, :, path],
                                       rtol=0, atol=1e-5)  # fmt: skip


def witnessed(fitted: ReadsPrompts) -> tuple[ReadsPrompts, dict]:
    """Note what an intervention reads, and what it is bound to."""
    seen = {}

    class Witness(type(fitted)):
        def read(self, layer, values, real):
            seen[layer] = values, real
            return values[:, 0]

        def bound(self, readings):
            seen["bound"] = readings
            return fitted

    own = {field.name: getattr(fitted, field.name) for field in dataclasses.fields(fitted)}
    return Witness(**own), seen


@pytest.mark.parametrize("method", [Tda(), InferAligner(top_k=1)])
def test_the_unsteered_model_is_read_at_all_tokens_of_every_prompt(model, method):
    witness, seen = witnessed(method.fit(model, contrasts()))
    site = {"neuron": ("neuron", "mlp_out"), "residual": ("hidden", "residual")}
    with torch.inference_mode():
        _, readings = run_prompts(model, PROMPTS, witness)
        bound_to(readings, witness)
    for i, prompt in enumerate(PROMPTS):
        _, layers = run_once(model.network, prompt, *site[witness.site.value])
        for layer, expected in enumerate(layers):
            values, real = seen[layer]
            assert real[i].sum() == len(prompt)
            torch.testing.assert_close(values[i, real[i]], expected, rtol=0, atol=1e-5)
            bound = seen["bound"][layer]
            assert bound.shape == (3, 1, values.shape[-1])
            torch.testing.assert_close(bound[i, 0], expected[0], rtol=0, atol=1e-5)


def test_an_intervention_that_does_not_ask_reads_nothing(model):
    steering = Sadi(top_k=1, strength=2.0).fit(model, contrasts())
    assert not isinstance(steering, ReadsPrompts)
    with torch.inference_mode():
        prefix, readings = run_prompts(model, PROMPTS, steering)
    assert (prefix.padded_length, readings) == (3, {})
    assert bound_to(readings, steering) is steering


def test_the_unsteered_cell_is_that_of_other_methods(model):
    requests = requests_for(model.name)
    found = [
        [scores.logprobs[:, 0] for scores in score_choices(model, requests, steering)]
        for steering in (
            method.fit(model, contrasts())
            for method in (Sadi(top_k=1), Tda(), InferAligner(top_k=1))
        )
    ]
    for plain, control, whole in zip(*found, strict=True):
        np.testing.assert_allclose(control, plain, atol=1e-5, rtol=0)
        np.testing.assert_allclose(whole, plain, atol=1e-5, rtol=0)
