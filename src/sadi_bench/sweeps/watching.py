"""What a sweep tells while it runs: a line a run, a bar on a terminal, a heartbeat elsewhere.

The runs may be anywhere. Their outcomes are read from the sweep's folder twice a second.
"""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from sadi_bench.heartbeat import heartbeat
from sadi_bench.results.formatting import metric_name, score
from sadi_bench.sweeps.planned import PlannedRun
from sadi_bench.sweeps.run_outcome import (
    BEFORE,
    DONE,
    ENDED,
    FAILED,
    RUNNING,
    Outcome,
    alike,
    outcome_of,
)

EVERY = 0.5  # seconds


@contextmanager
def watched(folder: Path, runs: Sequence[PlannedRun]) -> Iterator[None]:
    """Tell of the runs of a sweep while the block starts them and waits for them."""
    bar = tqdm(total=len(runs), desc="sweep", unit="run", disable=None, position=0)
    watch = Watch(folder, runs, bar)
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(EVERY):
            watch.look()

    thread = threading.Thread(target=look, name="sweep", daemon=True)
    thread.start()
    try:
        with heartbeat(watch.now):
            yield
    finally:
        ended.set()
        thread.join()
        watch.look()
        bar.close()


class Watch:
    """Follow the outcomes of a sweep, and print a line for each run that has ended."""

    def __init__(self, folder: Path, runs: Sequence[PlannedRun], bar: tqdm) -> None:
        self._folder, self._runs, self._bar = folder, runs, bar
        self._outcomes: dict[int, Outcome] = {}
        self._stream = sys.stdout

    def look(self) -> None:
        """Read what has changed and say what has ended."""
        for run in self._runs:
            before = self._outcomes.get(run.number)
            if before is not None and before.state in ENDED:
                continue
            outcome = self._outcomes[run.number] = outcome_of(self._folder, run.number)
            if outcome.state in ENDED:
                tqdm.write(self._line(run, outcome), file=self._stream)
                self._stream.flush()
                self._bar.update()
        self._bar.set_postfix_str(self._left(), refresh=True)

    def now(self) -> str:
        """Say which runs are under way, since when, and how long all of it may still take."""
        running = [run for run in self._runs if self._state(run) == RUNNING]
        if not running:
            ended = sum(self._state(run) in ENDED for run in self._runs)
            awaited = "the launcher to end" if ended == len(self._runs) else "a run to begin"
            return f"[{ended}/{len(self._runs)}] waiting for {awaited}"
        first = running[0]
        others = f" and {len(running) - 1} more" if len(running) > 1 else ""
        since = time.time() - self._outcomes[first.number].began
        left = self._left()
        return f"{self._place(first)} {first.name}{others}: {duration(since)}" + (
            f", {left}" if left else ""
        )

    def _left(self) -> str:
        """Estimate the time left from the runs that were computed; empty before the first."""
        done = [o for o in self._outcomes.values() if o.state == DONE]
        ended = sum(o.state in ENDED for o in self._outcomes.values())
        if not done or ended == len(self._runs):
            return ""
        running = [o for o in self._outcomes.values() if o.state == RUNNING]
        mean = sum(o.seconds for o in done) / len(done)
        under_way = sum(min(mean, time.time() - o.began) for o in running)
        work = mean * (len(self._runs) - ended) - under_way
        return f"about {duration(work / max(1, len(running)))} left"

    def _state(self, run: PlannedRun) -> str | None:
        outcome = self._outcomes.get(run.number)
        return outcome and outcome.state

    def _place(self, run: PlannedRun) -> str:
        return f"[{run.number + 1}/{len(self._runs)}]"

    def _line(self, run: PlannedRun, outcome: Outcome) -> str:
        start = f"{self._place(run)} {run.name}: "
        if outcome.state == FAILED:
            return f"{start}failed{self._why(run, outcome)}"
        held_out = " (held out)" if outcome.heldout is not None else ""
        numbers = f"{scores(outcome)}{held_out}"
        ended = BEFORE if outcome.state == BEFORE else duration(outcome.seconds)
        return f"{start}{numbers}, {ended}"

    def _why(self, run: PlannedRun, outcome: Outcome) -> str:
        """Say a cause in full once."""
        for number, other in self._outcomes.items():
            said = other.state == FAILED and number < run.number
            if said and alike(other.cause, outcome.cause):
                return f" like run {number + 1}"
        return f": {outcome.cause}"


def scores(outcome: Outcome) -> str:
    """Write the metric that chose the cell, unsteered and held out."""
    values = [v for v in (outcome.unsteered, outcome.heldout) if v is not None]
    known = " → ".join(score(outcome.metric, value) for value in values)
    return f"{metric_name(outcome.metric)} {known}".strip()


def duration(seconds: float) -> str:
    """Write seconds in the unit that fits: 41 s, 3 min, 2 h 5 min."""
    if seconds < 100:
        return f"{max(0, seconds):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
