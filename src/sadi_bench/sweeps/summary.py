"""A sweep's end: a row a run, what failed and how to try again, as text, Markdown and CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sadi_bench.disk import write_atomically
from sadi_bench.results.formatting import aligned, fitted, markdown
from sadi_bench.results.notes import wrapped
from sadi_bench.results.run_dir import write_errors
from sadi_bench.sweeps.planned import PlannedRun
from sadi_bench.sweeps.run_outcome import BEFORE, DONE, FAILED, Outcome, alike
from sadi_bench.sweeps.watching import duration, scores

HEADER = ("task", "model", "method", "swept", "unsteered → held-out", "state", "seconds")
SHORTENED = (0, 1, 2, 3)
COLUMNS = ("run", "task", "model", "method", "swept", "metric", "unsteered", "heldout", "seconds",
           "state", "run_directory", "cause", "command")  # fmt: skip

Ended = tuple[PlannedRun, Outcome]


@dataclass(frozen=True)
class Summary:
    """Hold how a sweep ended; `command` is the whole sweep's, as it was typed."""

    ended: Sequence[Ended]
    command: str
    seconds: float

    @property
    def failed(self) -> int:
        """How many runs failed."""
        return sum(outcome.state == FAILED for _, outcome in self.ended)

    def text(self) -> str:
        """Return the summary for a terminal, at most 100 columns wide but for its commands."""
        rows = self._table()
        rows = aligned(fitted(rows, SHORTENED), len(rows[0]) - 1)
        causes = []
        for cause, command in self._causes():
            causes += ["", *wrapped(cause), f"  {command}"]
        return "\n".join(["", *wrapped(self._counts()), "", *rows, *causes, ""])

    def write(self, place: Path) -> None:
        """Write `place`.md and `place`.csv.

        Raises:
            SettingError: they cannot be written there.
        """
        with write_errors(place.with_suffix(".md")):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(
                {
                    place.with_suffix(".md"): self._markdown().encode(),
                    place.with_suffix(".csv"): self._csv().encode(),
                }
            )

    def _counts(self) -> str:
        states = [outcome.state for _, outcome in self.ended]
        counted = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        runs = "1 run" if len(states) == 1 else f"{len(states)} runs"
        return f"{runs} in {duration(self.seconds)}: {', '.join(counted)}"

    def _sorted(self) -> list[Ended]:
        """Put failures last."""
        return sorted(self.ended, key=lambda each: (each[1].state == FAILED, each[0].number))

    def _table(self) -> list[list[str]]:
        rows = [
            [run.task, run.model, run.method, run.varied, *_shown(outcome)]
            for run, outcome in self._sorted()
        ]
        if not any(run.varied for run, _ in self.ended):
            return [[*HEADER[:3], *HEADER[4:]], *([*row[:3], *row[4:]] for row in rows)]
        return [[*HEADER], *rows]

    def _causes(self) -> list[tuple[str, str]]:
        """Say each cause once, with the command that tries again."""
        groups: list[list[Ended]] = []
        for each in self._sorted():
            if each[1].state == FAILED:
                group = next((g for g in groups if alike(g[0][1].cause, each[1].cause)), None)
                groups.append([each]) if group is None else group.append(each)
        return [self._cause(group) for group in groups]

    def _cause(self, group: Sequence[Ended]) -> tuple[str, str]:
        run, outcome = group[0]
        place = f" ({outcome.path}/error.txt)" if outcome.path else ""
        if len(group) == 1:
            return f"{run.name} failed: {outcome.cause}{place}", run.command
        cause = f"{len(group)} runs failed like {run.name}: {outcome.cause}{place}"
        return cause, self.command  # what is finished is not computed again

    def _markdown(self) -> str:
        rows = self._table()
        parts = [f"# {self._counts()}", f"`{self.command}`", markdown(rows, len(rows[0]) - 1)]
        for cause, command in self._causes():
            parts.append(f"{cause}\n\n    {command}")
        return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for run, outcome in self._sorted():
            numbers = (outcome.metric, outcome.unsteered, outcome.heldout, outcome.seconds)
            writer.writerow([run.number + 1, run.task, run.model, run.method, run.varied, *numbers,
                             outcome.state, outcome.path, outcome.cause, run.command])  # fmt: skip
        return text.getvalue()


def _shown(outcome: Outcome) -> tuple[str, str, str]:
    numbers = scores(outcome) if outcome.state in (DONE, BEFORE) else ""
    seconds = f"{outcome.seconds:.0f}" if outcome.state in (DONE, FAILED) else ""
    return numbers, outcome.state, seconds
