"""`sadi-bench plan ...`: the words of a run or a sweep, and what it would take instead of it."""

import sys
from pathlib import Path

from sadi_bench.composing import composed, typed_runs
from sadi_bench.errors import SettingError

CONFIG_DIRS = ("--config-dir", "-cd")


def main(arguments: list[str]) -> None:
    """Print the plan of one run, or a row a run of a sweep; nothing is written.

    The exit code is 1 where some runs of a sweep would be refused.

    Raises:
        SettingError: the run, or every run of the sweep, would be refused.
    """
    from sadi_bench.planning.plan_table import sweep_text
    from sadi_bench.planning.plan_text import plan_text
    from sadi_bench.planning.planner import Planner

    runs, planner = typed_runs(*_with_searchpath(arguments)), Planner()
    if len(runs) == 1:
        print(plan_text(planner.plan(composed(*runs[0]))))  # noqa: T201
        return
    found = []
    for settings in runs:
        try:
            found.append((settings, planner.plan(composed(*settings))))
        except SettingError as error:
            found.append((settings, error))
    refused = [each for _, each in found if isinstance(each, SettingError)]
    if len(refused) == len(runs):
        raise refused[0]
    print(sweep_text(found))  # noqa: T201
    if refused:
        sys.exit(1)


def _with_searchpath(arguments: list[str]) -> list[str]:
    """Say in a setting where a user's own configs are, and refuse other flags."""
    left, settings = list(arguments), []
    while left:
        word, _, value = left.pop(0).partition("=") if left[0][:1] == "-" else (left.pop(0), "", "")
        if word in CONFIG_DIRS:
            folder = Path(value or (left.pop(0) if left else "")).resolve()
            settings.append(f"hydra.searchpath=[file://{folder}]")
        elif word.startswith("-") and word not in ("-m", "--multirun"):
            raise SettingError(
                f"plan: {word} is not known; settings, -m and --config-dir FOLDER are."
            )
        else:
            settings.append(word)
    return settings
