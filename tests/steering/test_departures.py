"""Which settings the paper has numbers for."""

import pytest

from sadi_bench.steering.methods import method_of


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "sadi-head"),
        ({"site": "neuron", "top_k": 3}, "sadi-neuron"),
        ({"elements": "random"}, "random-head"),
        ({"vector": "fixed"}, "fixed-head"),
        ({"vector": "fixed", "elements": "random"}, None),
        ({"patch": "inflight"}, None),
        ({"score": "abs"}, None),
        ({"reach": "from_last_prompt"}, None),
        ({"site": "hidden", "hidden_site": "residual"}, None),
    ],
)
def test_only_the_released_switches_stand_beside_the_papers_numbers(settings, name):
    method = method_of({"kind": "sadi", "name": "mine", **settings})
    assert method.published_name() == name


def test_a_switch_that_departs_from_the_released_code_is_named():
    method = method_of({"kind": "sadi", "name": "mine", "patch": "inflight", "score": "abs"})
    assert method.departures() == ["patch=inflight", "score=abs"]
