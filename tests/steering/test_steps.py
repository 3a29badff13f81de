"""`method.steps` says in words of generation what `method.reach` says in words of positions."""

import pytest

from departing import departing
from sadi_bench.errors import SettingError
from sadi_bench.steering.methods import method_of

REACHING = ["sadi", "iti", "caa", "hpr", "inferaligner"]


def settings(kind, **more):
    return {"kind": kind, "name": "mine", **more}


@pytest.mark.parametrize("kind", REACHING)
@pytest.mark.parametrize(
    ("steps", "reach"), [("prefill", "last_prompt"), ("every_step", "from_last_prompt")]
)
def test_steps_set_the_reach(kind, steps, reach):
    assert method_of(settings(kind, steps=steps)).reach == reach
    assert method_of(settings(kind, steps=steps, reach="last_prompt")).reach == reach


@pytest.mark.parametrize("kind", REACHING)
def test_no_steps_leave_the_reach_as_it_is(kind):
    own = method_of(settings(kind)).reach
    assert method_of(settings(kind, steps=None)).reach == own
    given = method_of(settings(kind, steps=None, reach="last_prompt"))
    assert given.reach == "last_prompt"


def test_a_departure_by_steps_is_named_as_one_by_reach():
    assert departing("caa", steps="prefill") == ["reach=last_prompt"]
    assert departing("caa", steps="every_step") == []


@pytest.mark.parametrize("steps", ["first", True, 1, "last_prompt"])
def test_other_steps_are_refused_in_one_line(steps):
    message = rf"method\.steps={steps}: choose one of prefill, every_step; null is"
    with pytest.raises(SettingError, match=message) as caught:
        method_of(settings("caa", steps=steps))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["none", "calibrate", "tda"])
def test_steps_of_a_method_without_a_reach_are_refused(kind):
    with pytest.raises(SettingError, match=rf"method\.steps=prefill: kind {kind} has no reach"):
        method_of(settings(kind, steps="prefill"))
    method_of(settings(kind, steps=None))
