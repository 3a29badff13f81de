"""What a launcher calls: one run of a sweep, which fails without stopping the others."""

import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sadi_bench.failing import place_of
from sadi_bench.sweeps.run_outcome import BEFORE, DONE, FAILED, Outcome, recorded

if TYPE_CHECKING:
    from sadi_bench.experiment import RunResult


def swept_run(
    folder: Path,
    number: int,
    work: Callable[[], "RunResult"],
    told: Callable[[Exception], str | None],
    *,
    tracebacks: bool = False,
) -> None:
    """Do a run of a sweep and leave its outcome in the sweep's folder.

    `told` puts a user's mistake in one line, and answers None for a mistake of the program.
    """
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.WARNING)  # what a run tells is in its log.txt

    def outcome() -> Outcome:
        try:
            return _finished(work())
        except Exception as error:
            if tracebacks:
                traceback.print_exc(file=sys.stderr)
            place = place_of(error)
            return Outcome(FAILED, cause=_cause(error, told(error)), path=str(place or ""))

    recorded(folder, number, outcome)


def _finished(run: "RunResult") -> Outcome:
    from sadi_bench.results.run_facts import metric_of

    ours = run.result["sadi_bench"]
    metric = ours["protocols"]["metric"]
    return Outcome(
        DONE if run.remark is None else BEFORE,
        path=str(run.path),
        metric=metric,
        unsteered=metric_of(ours, "unsteered", metric).get("value"),
        heldout=metric_of(ours, "heldout", metric).get("value"),
    )


def _cause(error: Exception, line: str | None) -> str:
    if line is not None:
        return line
    text = " ".join(str(error).split())
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(where.filename).name}, line {where.lineno})"
