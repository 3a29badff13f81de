"""What tables say of a method's settings that are not as published."""

from dataclasses import asdict

from sadi_bench.results.paper.departures import departures
from sadi_bench.steering.methods import method_of


def departing(kind: str, **settings: object) -> list[str]:
    typed = {"kind": kind, "name": "mine", **settings}
    return departures({**typed, **asdict(method_of(typed))})
