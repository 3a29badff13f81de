"""One file a method; each names its class `METHOD`, a `Method`."""

import dataclasses
import pkgutil
from collections.abc import Mapping, Set
from importlib import import_module
from typing import Any

from sadi_bench.errors import SettingError, unknown_key, unknown_name
from sadi_bench.plugins import METHODS, loaded, plugins
from sadi_bench.steering.intervention import Intervention
from sadi_bench.steering.method import Method

STEPS = {"prefill": "last_prompt", "every_step": "from_last_prompt"}
"""Words of generation, `method.steps` → words of positions, `method.reach`."""


def method_class(kind: str) -> type[Method]:
    """Find the class of a kind of method: a file of this folder, or another package's.

    A package adds one by an entry point of the group `sadi_bench.methods`.

    Raises:
        SettingError: there is none, or it does not keep the contract of `Method`.
    """
    kinds = [module.name for module in pkgutil.iter_modules(__path__)]
    added = plugins(METHODS, kinds)
    if kind in kinds:
        return checked(kind, import_module(f"{__name__}.{kind}").METHOD)
    if kind not in added:
        raise unknown_name("method.kind", kind, [*kinds, *added])
    return checked(kind, loaded(added[kind]))


def checked(kind: str, method: Any) -> type[Method]:
    """Return a method's class if it keeps the contract; say what is missing if not."""
    fault = None
    if not (isinstance(method, type) and issubclass(method, Method)):
        fault = "it is no subclass of sadi_bench.steering.method.Method"
    elif not dataclasses.is_dataclass(method) or "__dataclass_fields__" not in vars(method):
        fault = "it is no dataclass: put @dataclass(frozen=True) above it"
    elif method.__abstractmethods__:
        fault = f"it does not write {', '.join(sorted(method.__abstractmethods__))}"
    elif not _is_intervention(getattr(method, "intervention", None)):
        fault = "its `intervention` names no dataclass derived from Intervention, which fit returns"
    if fault:
        raise SettingError(f"method.kind={kind}: {fault}; docs/extending.md has an example.")
    return method


def _is_intervention(kind: Any) -> bool:
    return (
        isinstance(kind, type) and issubclass(kind, Intervention) and dataclasses.is_dataclass(kind)
    )


def method_of(settings: Mapping[str, Any]) -> Method:
    """Build a method from its YAML: `kind` names the file, `name` is for tables."""
    if not settings:
        raise SettingError("method: none is chosen; say method=sadi-head, for instance.")
    if not isinstance(name := settings.get("name"), str) or not name.strip():
        raise SettingError(f"method.name={name or 'null'}: give it a text; tables show it.")
    kind = str(settings.get("kind", ""))
    method = method_class(kind)
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
