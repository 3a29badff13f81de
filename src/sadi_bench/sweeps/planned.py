"""The runs that a sweep is made of: their names and commands, and the sweep's id."""

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

NAMED = ("task", "model", "method")
"""Settings that have a column of their own."""


@dataclass(frozen=True)
class PlannedRun:
    """Name one run of a sweep; `number` counts from 0, `varied` is what else was swept."""

    number: int
    task: str
    model: str
    method: str
    varied: str
    command: str

    @property
    def name(self) -> str:
        """What a line on the run begins with."""
        return " ".join(word for word in (self.task, self.model, self.method, self.varied) if word)


def planned_runs(
    overrides: Sequence[Sequence[str]],
    names: Sequence[tuple[str, str, str]],
    arguments: Sequence[str],
) -> tuple[PlannedRun, ...]:
    """Name the runs of a sweep, in order.

    `overrides` are each run's settings as typed, `names` its task, model and method, `arguments`
    what was typed behind `sadi-bench`.
    """
    flags = [word for word in arguments if _is_flag(word)]
    values = [{o.partition("=")[0]: o.partition("=")[2] for o in each} for each in overrides]
    varying = [
        key
        for key in dict.fromkeys(key for each in values for key in each)
        if key not in NAMED and len({each.get(key) for each in values}) > 1
    ]
    return tuple(
        PlannedRun(
            number,
            *names[number],
            varied=" ".join(f"{key}={values[number][key]}" for key in varying),
            command=shlex.join(["sadi-bench", *flags, *typed]),
        )
        for number, typed in enumerate(overrides)
    )


def sweep_id(overrides: Sequence[Sequence[str]], without: Sequence[str]) -> str:
    """Return 12 hex digits of the runs' settings; those named `without` take no part."""
    runs = sorted(sorted(o for o in each if o.partition("=")[0] not in without)
                  for each in overrides)  # fmt: skip
    return hashlib.sha256(json.dumps(runs).encode()).hexdigest()[:12]


def _is_flag(word: str) -> bool:
    """Tell --config-dir and its folder from settings, and leave out what asks for a sweep."""
    is_setting = "=" in word and not word.startswith("-")
    return not is_setting and word not in ("-m", "--multirun", "run") and word[:1] not in "~+"
