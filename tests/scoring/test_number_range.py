"""Half precision, and strengths that leave the number range."""

import numpy as np
import pytest
import torch

from cases import contrasts, in_rows, requests_for, tiny_lm
from sadi_bench.scoring.choices import ChoiceRequest, score_choices
from sadi_bench.steering.methods.sadi import Sadi

OVERFLOWS = [(torch.float16, 1e7), (torch.float32, 1e39)]


def steered(model, strengths, **settings):
    method = Sadi(top_k=4, strength=strengths, score="abs", patch="inflight", **settings)
    return method.fit(tiny_lm(model.name), contrasts())


@pytest.mark.parametrize(("dtype", "strength"), OVERFLOWS, ids=str)
@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_an_overflow_is_flagged_and_never_a_number(name, dtype, strength):
    model = tiny_lm(name, dtype)
    intervention = steered(model, [strength], site="head")
    first = [ChoiceRequest(r.prompt, (*r.answers, (0,))) for r in requests_for(name)]
    for scores in score_choices(model, first, intervention):  # the arg-max of NaN is token 0
        assert not np.isnan(scores.logprobs).any()
        assert not scores.finite[1]
        assert (scores.logprobs[:, 1] == -np.inf).all()
        assert not scores.greedy[:, 1].any()


@pytest.mark.parametrize(("dtype", "strength"), OVERFLOWS, ids=str)
@pytest.mark.parametrize(
    "build",
    [
        pytest.param(tiny_lm, id="packed"),
        pytest.param(lambda *a: in_rows(tiny_lm(*a)), id="rows"),
    ],
)
def test_an_overflow_in_one_cell_leaves_the_others_alone(build, dtype, strength):
    """In a packed sequence 0 × inf is NaN: a masked neighbour can still spoil everything."""
    model, requests = build("llama", dtype), requests_for("llama")
    alone = score_choices(model, requests, steered(model, [2.0, 3.0]))
    beside = score_choices(model, requests, steered(model, [2.0, strength, 3.0]))
    for expected, found in zip(alone, beside, strict=True):
        assert found.finite.tolist() == [True, True, False, True]
        np.testing.assert_allclose(
            found.logprobs[:, [0, 1, 3]], expected.logprobs, rtol=0, atol=0.05
        )


@pytest.mark.parametrize(
    ("rows", "reach"),
    [
        (False, "last_prompt"),
        (False, "from_last_prompt"),
        (True, "last_prompt"),
        (True, "from_last_prompt"),
    ],
)
def test_what_is_finite_does_not_depend_on_the_other_prompts(rows, reach):
    """Strengths at which some prompts overflow float16 and others, or their padding, do not."""
    model, requests = tiny_lm("llama", torch.float16), list(requests_for("llama"))
    model = in_rows(model) if rows else model
    for i in (0, 2):  # trees of unlike size: the smaller are padded in a batch
        requests[i] = ChoiceRequest(requests[i].prompt, requests[i].answers[i : i + 1])
    mixed = 0
    for strength in (3e4, 6e4, 1e5, 1.5e5, 2e5, 3e5, 4e5, 8e5):
        intervention = steered(model, [strength], reach=reach)
        together = score_choices(model, requests, intervention)
        alone = [score_choices(model, [r], intervention)[0] for r in requests]
        assert [s.finite.tolist() for s in together] == [s.finite.tolist() for s in alone]
        assert all(s.finite[0] for s in together)
        mixed += len({bool(s.finite[1]) for s in together}) == 2
    assert mixed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_float32(lm, dtype):
    exact, half = tiny_lm(lm.name), tiny_lm(lm.name, dtype)
    intervention, requests = steered(exact, [2.0]), requests_for(lm.name)
    pairs = zip(
        score_choices(exact, requests, intervention),
        score_choices(half, requests, intervention),
        strict=True,
    )
    gaps = [np.abs(a.logprobs - b.logprobs).max() for a, b in pairs]
    assert 0 < max(gaps) < (2.0 if dtype == torch.bfloat16 else 0.3)


def test_scaling_is_done_in_float32():
    """A strength beyond float16 whose products are within it."""
    intervention = steered(tiny_lm("llama", torch.float16), [1e5])
    layer = int((intervention.ranks < 4).any(dim=1).nonzero()[0])
    values = torch.full((1, 2, 1, 32), 0.01, dtype=torch.float16)
    new = intervention.edit(layer, values, torch.tensor([0, 1]))
    assert new.dtype == torch.float16
    assert new[0, 1].max().item() == pytest.approx(1000, rel=1e-3)
    assert torch.equal(new[0, 0], values[0, 0])
