"""A method says which of its switches are not as published."""

from sadi_bench.steering.methods import method_of


def test_a_switch_that_departs_from_the_released_code_is_named():
    method = method_of({"kind": "sadi", "name": "mine", "patch": "inflight", "score": "abs"})
    assert method.departures() == ["patch=inflight", "score=abs"]
