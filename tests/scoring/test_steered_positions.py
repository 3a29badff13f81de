"""Which numbers an edit touches, seen by probes on both sides of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from cases import contrasts, in_rows, requests_for, tiny_lm
from sadi_bench.scoring.choices import ChoiceRequest, score_choices
from sadi_bench.steering.intervention import Reach
from sadi_bench.steering.methods.sadi import MaskedSteering, Sadi

HEADS, HEAD_DIM = 4, 8
MODELS = {"packed": lambda: tiny_lm("llama"), "rows": lambda: in_rows(tiny_lm("llama")),
          "alibi": lambda: tiny_lm("bloom"), "other shape": lambda: tiny_lm("opt")}  # fmt: skip


@contextmanager
def probed(model) -> Iterator[dict[int, list[tuple[torch.Tensor, torch.Tensor]]]]:
    """Record what reaches each output projection before the edit and after it.

    Hooks run in the order of their registration: the first is registered here, before the
    engine's; a hook on the output is shown the input as edited.
    """
    seen: dict[int, list] = {}
    handles = []
    for layer, block in enumerate(model.network.get_submodule(model.family.blocks)):
        module = block.get_submodule(model.family.head.module)
        notes = seen.setdefault(layer, [])

        def before(_module, args, notes=notes):
            notes.append([args[0].clone()])

        def after(_module, args, _output, notes=notes):
            notes[-1].append(args[0].clone())

        handles.append(module.register_forward_pre_hook(before))
        handles.append(module.register_forward_hook(after))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def masked_in_every_layer(reach: str, patch: str = "inflight") -> MaskedSteering:
    """Ranks that put one element of each layer into the first three: layer l's is head l."""
    method = Sadi(top_k=3, strength=[3.0, 5.0], patch=patch, reach=reach)
    fitted = method.fit(tiny_lm("llama"), contrasts())
    rest = iter(range(3, 12))
    rows = [[layer if head == layer else next(rest) for head in range(HEADS)] for layer in range(3)]
    return replace(fitted, reach=Reach(reach), ranks=torch.tensor(rows))


@pytest.mark.parametrize("reach", ["last_prompt", "from_last_prompt"])
@pytest.mark.parametrize("name", MODELS)
def test_an_edit_scales_masked_elements_at_steered_positions_of_every_row(name, reach):
    """Three prompts of 1, 9 and 30 tokens, each with branches of two further tokens."""
    model = MODELS[name]()
    requests = [ChoiceRequest(r.prompt, ((5, 6, 7),)) for r in requests_for(model.name, (9, 1, 30))]
    nodes, cells = 3, 3
    with probed(model) as seen:
        score_choices(model, requests, masked_in_every_layer(reach))
    steered = slice(0, 1) if reach == "last_prompt" else slice(0, 3)
    for layer, passes in seen.items():
        edited = [p for p in passes if not torch.equal(*p)]
        assert len(edited) == 1  # the prefix is never touched, the one steered pass is
        before, after = (t.reshape(3, cells, nodes, HEADS, HEAD_DIM) for t in edited[0])
        expected = before.clone()
        for cell, strength in ((1, 3.0), (2, 5.0)):
            expected[:, cell, steered, layer] *= strength
        torch.testing.assert_close(after, expected, rtol=0, atol=0)
        touched = (before != after).flatten(3).any(-1)  # [prompt cell node]
        assert touched[:, 1:, steered].all()


@pytest.mark.parametrize("name", MODELS)
def test_clean_overwrites_the_site_with_the_unsteered_copy_in_every_layer(name):
    model = MODELS[name]()
    requests = [ChoiceRequest(r.prompt, ((5, 6, 7),)) for r in requests_for(model.name, (9, 1, 30))]
    with probed(model) as seen:
        score_choices(model, requests, masked_in_every_layer("last_prompt", "clean"))
    for layer, passes in seen.items():
        before, after = (t.reshape(3, 3, 3, HEADS, HEAD_DIM) for t in passes[-1])
        expected = before.clone()
        for cell, strength in ((1, 3.0), (2, 5.0)):
            expected[:, cell, 0] = before[:, 0, 0]
            expected[:, cell, 0, layer] *= strength
        torch.testing.assert_close(after, expected, rtol=0, atol=0)
        if layer:  # what flows by differs from the clean values: there was something to overwrite
            assert not torch.equal(before[:, 1, 0], before[:, 0, 0])


def test_padding_reaches_no_score():
    """A batch is padded with the prompt's first token; another filling gives the same scores."""
    filled = []
    for name in ("llama", "gemma3", "bloom", "opt"):
        model = tiny_lm(name)
        requests = requests_for(name, (1, 30, 9))
        intervention = masked_in_every_layer("from_last_prompt")
        expected = score_choices(model, requests, intervention)
        lengths = sorted((len(r.prompt) for r in requests), reverse=True)

        def fill(_module, args, kwargs, lengths=lengths, name=name):
            ids = kwargs["input_ids"]
            if ids.shape == (3, lengths[0] - 1):  # the prefix
                for row, length in enumerate(lengths):
                    ids[row, length - 1 :] = 77
                filled.append(name)
            return args, kwargs

        handle = model.backbone.register_forward_pre_hook(fill, with_kwargs=True)
        try:
            found = score_choices(model, requests, intervention)
        finally:
            handle.remove()
        for a, b in zip(found, expected, strict=True):
            assert abs(a.logprobs - b.logprobs).max() < 1e-5
    assert filled == ["llama", "gemma3", "bloom", "opt"]
