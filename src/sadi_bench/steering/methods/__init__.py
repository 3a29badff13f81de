"""One file a method; each names its class `METHOD`, with `fit(lm, pairs) -> Intervention`."""

import dataclasses
import pkgutil
from collections.abc import Mapping, Sequence, Set
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from sadi_bench.errors import SettingError, unknown_key, unknown_name

STEPS = {"prefill": "last_prompt", "every_step": "from_last_prompt"}
"""Words of generation, `method.steps` → words of positions, `method.reach`."""


@runtime_checkable
class Method(Protocol):
    """Learn from contrastive pairs, then freeze.

    `content_free`: texts that take the place of the documents in the pairs' prompts; mostly none.
    A method that is a `control` (an attribute that few have) is no steering, and not ranked.
    """

    content_free: Sequence[str]

    def fit(self, lm: Any, pairs: Any) -> Any:
        """Return a frozen Intervention."""

    def departures(self) -> list[str]:
        """List the switches that are not as published, for tables to show."""


def method_of(settings: Mapping[str, Any]) -> Method:
    """Build a method from its YAML: `kind` names the file, `name` is for tables."""
    if not settings:
        raise SettingError("method: none is chosen; say method=sadi-head, for instance.")
    if not isinstance(name := settings.get("name"), str) or not name.strip():
        raise SettingError(f"method.name={name or 'null'}: give it a text; tables show it.")
    kinds = [module.name for module in pkgutil.iter_modules(__path__)]
    kind = settings.get("kind", "")
    if kind not in kinds:
        raise unknown_name("method.kind", str(kind), kinds)
    method = import_module(f"{__name__}.{kind}").METHOD
    fields = {field.name for field in dataclasses.fields(method)}
    given = {k: v for k, v in settings.items() if k not in ("kind", "name", "steps")}
    for key in given:
        if key not in fields:
            raise unknown_key("method", key, fields)
    if (steps := settings.get("steps")) is not None:
        given["reach"] = _reach_of(steps, kind, fields)
    return method(**given)


def _reach_of(steps: object, kind: str, fields: Set[str]) -> str:
    """Say in words of positions what a user said in words of generation."""
    if "reach" not in fields:
        raise SettingError(
            f"method.steps={steps}: kind {kind} has no reach that it could set; leave it null."
        )
    if steps not in STEPS:
        raise SettingError(
            f"method.steps={steps}: choose one of {', '.join(STEPS)}; null is as method.reach says."
        )
    return STEPS[steps]
