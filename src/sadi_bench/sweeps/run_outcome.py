"""What became of a run of a sweep: a small file that the run writes and the sweep reads."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path

from sadi_bench.disk import write_atomically

WAITING, RUNNING, STOPPED = "not run", "running", "stopped"
DONE, BEFORE, FAILED = "done", "finished before", "failed"
ENDED = (DONE, BEFORE, FAILED)
ALIKE = 0.8  # of the words


@dataclass(frozen=True)
class Outcome:
    """Say what became of a run.

    `began` is seconds since 1970. `unsteered` and `heldout` are values of `metric`, which chose the
    cell; None where the run has none.
    """

    state: str
    began: float = 0.0
    seconds: float = 0.0
    cause: str = ""
    path: str = ""
    metric: str = ""
    unsteered: float | None = None
    heldout: float | None = None


def outcome_of(folder: Path, number: int) -> Outcome:
    """Read what became of the run of this number; it is `not run` where it never began."""
    try:
        return Outcome(**json.loads(_file(folder, number).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Outcome(WAITING)


def recorded(folder: Path, number: int, work: Callable[[], Outcome]) -> Outcome:
    """Do a run's work, and keep what became of it; a file says meanwhile that it is running.

    `work` answers with an outcome even where a run fails. An exception stops the run: Ctrl-C, or a
    launcher that moves it to another machine, where it begins anew.
    """
    began = time.time()
    _write(folder, number, Outcome(RUNNING, began))
    ended = Outcome(STOPPED)
    try:
        ended = work()
    finally:
        ended = replace(ended, began=began, seconds=round(time.time() - began, 1))
        _write(folder, number, ended)
    return ended


def alike(cause: str, other: str) -> bool:
    """Tell whether two causes say the same of, for instance, two tasks: one is enough for both."""
    words = cause.split(), other.split()
    return SequenceMatcher(None, *words, autojunk=False).ratio() >= ALIKE


def _write(folder: Path, number: int, outcome: Outcome) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically({_file(folder, number): json.dumps(asdict(outcome)).encode()})


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number}.json"
