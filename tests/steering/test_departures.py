"""A method says which of its switches are not as published."""

from departing import departing


def test_a_switch_that_departs_from_the_released_code_is_named():
    assert departing("sadi", patch="inflight", score="abs") == ["patch=inflight", "score=abs"]
