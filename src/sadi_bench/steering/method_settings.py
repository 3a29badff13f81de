"""A method's settings, checked: numbers, counts, choices, layers."""

import math
from collections.abc import Mapping, Sequence

from sadi_bench.errors import SettingError
from sadi_bench.steering.intervention import Cell

WHOLE = "a whole number of at least 1"


def numbers(name: str, value: object, expected: str = "a finite number") -> list[float]:
    """Take one value of `method.NAME` or a list; refuse what is no finite number, and repeats."""
    given = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    values: list[float] = []
    for v in given:
        if isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v):
            raise SettingError(f"method.{name}={v}: choose {expected}, or a list of them.")
        values.append(v)
    if not values or len(set(values)) < len(values):
        raise SettingError(f"method.{name}={list(values)}: list at least one value, none twice.")
    return values


def counts(name: str, value: object) -> list[int]:
    """Take one whole number of at least 1, or a list of them."""
    values = numbers(name, value, WHOLE)
    for v in values:
        if v < 1 or v != int(v):
            raise SettingError(f"method.{name}={v}: choose {WHOLE}.")
    return [int(v) for v in values]


def check_count(name: str, value: object) -> None:
    """Refuse what is no single whole number of at least 1."""
    if counts(name, value) != [value]:
        raise SettingError(f"method.{name}={value}: choose {WHOLE}.")


def check_choices(settings: object, choices: Mapping[str, Sequence[str]]) -> None:
    """Refuse a field of a method's settings that is none of its choices."""
    for name, allowed in choices.items():
        if (value := getattr(settings, name)) not in allowed:
            raise SettingError(f"method.{name}={value}: choose one of {', '.join(allowed)}.")


def check_seed(seed: object) -> None:
    """Refuse what numpy's generators would."""
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise SettingError(f"method.seed={seed}: choose a whole number, 0 to {2**32 - 1}.")


def check_layers(name: str, value: object, model: str, num_layers: int) -> list[int]:
    """Take layers counted from 0, one or a list; None is all of them."""
    if value is None:
        return list(range(num_layers))
    expected = "a whole number of at least 0"
    layers = numbers(name, value, expected)
    for layer in layers:
        if layer < 0 or layer != int(layer):
            raise SettingError(f"method.{name}={layer}: choose {expected}.")
        if layer >= num_layers:
            raise SettingError(
                f"method.{name}={layer}: {model} has {num_layers} layers, counted from 0; "
                f"choose at most {num_layers - 1}."
            )
    return [int(layer) for layer in layers]


def check_top_layers(cells: Sequence[Cell], model: str, layers: int, remark: str = "") -> int:
    """Return the largest top_k of a grid; refuse one above the number of layers."""
    largest = int(max(cell.params["top_k"] for cell in cells[1:]))
    if largest > layers:
        of = f"{layers} layers {remark}".rstrip()
        raise SettingError(f"method.top_k={largest}: {model} has {of}; choose at most {layers}.")
    return largest
