"""Which of a method's switches are not as published: what tables say behind its name."""

from collections.abc import Mapping
from typing import Any

from sadi_bench.results.paper.matching import PUBLISHED


def departures(method: Mapping[str, Any]) -> list[str]:
    """List the switches of a method's settings, as typed, that are not as published.

    `method` has its kind and all its settings. A method of another package has none that we know.
    """
    known = PUBLISHED["methods"] | PUBLISHED["relatives"]
    switches = known.get(method["kind"], {})
    found = [f"{name}={method[name]}" for name, own in switches.items() if method[name] != own]
    if method["kind"] == "inferaligner" and not method["guide"]:
        found.insert(0, "guide=itself: gated CAA")
    return found
