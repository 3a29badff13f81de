"""A sweep from its first run to its summary, whatever starts the runs."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import Timeout

from sadi_bench.disk import held
from sadi_bench.errors import SettingError, SweepFailed
from sadi_bench.results.run_dir import write_errors
from sadi_bench.sweeps.planned import PlannedRun
from sadi_bench.sweeps.run_outcome import FAILED, RUNNING, WAITING, Outcome, outcome_of
from sadi_bench.sweeps.submitted import LOGS, Submitted
from sadi_bench.sweeps.summary import Summary
from sadi_bench.sweeps.watching import watched


def sweep(
    runs: Sequence[PlannedRun],
    folder: Path,
    command: str,
    launch: Callable[[], None],
    cluster: str | None = None,
) -> None:
    """Let `launch` do the runs, tell of them, and write FOLDER.md and FOLDER.csv.

    `cluster` is where submitit has jobs of its own: slurm or local. The folder stays where a run
    failed: its launcher's logs are there.

    Raises:
        SweepFailed: a run failed.
        SettingError: another process does this sweep, the launcher could start no run, or a file
            cannot be written.
    """
    with _alone(folder):
        summary = _watched(runs, folder, command, launch, Submitted(folder, cluster))
    if summary.failed:
        raise SweepFailed(
            f"{summary.failed} of {len(runs)} runs failed; {folder}.md says why and how to try "
            "again"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make the sweep's folder, and hold it: the same sweep twice would mix up its outcomes."""
    with ExitStack() as stack:
        with write_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(held(folder.with_name(f"{folder.name}.lock")))
            except Timeout:  # an OSError: not for `write_errors`
                raise SettingError(
                    f"{folder}: another process is doing this very sweep; wait until it is done, "
                    "or set runs_dir=… to another folder."
                ) from None
            shutil.rmtree(folder, ignore_errors=True)  # what the same sweep has left before
            folder.mkdir()
        yield


def _watched(
    runs: Sequence[PlannedRun],
    folder: Path,
    command: str,
    launch: Callable[[], None],
    submitted: Submitted,
) -> Summary:
    began, lost, summary = time.time(), None, Summary((), command, 0)
    try:
        with watched(folder, runs):
            lost = _launched(launch, submitted)
            if lost is not None and not any(folder.glob("*.json")):
                raise SettingError(f"hydra/launcher: {' '.join(str(lost).split())}") from lost
    finally:
        if any(folder.glob("*.json")):
            summary = Summary(_ended(folder, runs, lost), command, time.time() - began)
            print(summary.text(), flush=True)  # noqa: T201
            summary.write(folder)
        if not (summary.failed and (folder / LOGS).is_dir()):
            shutil.rmtree(folder, ignore_errors=True)
    return summary


def _launched(launch: Callable[[], None], submitted: Submitted) -> Exception | None:
    """Return what stopped the launcher, if anything did."""
    try:
        launch()
    except Exception as error:  # of any launcher, at its first job that gave no answer
        submitted.wait()
        return error
    except BaseException:
        submitted.stop()
        raise
    return None


def _ended(
    folder: Path, runs: Sequence[PlannedRun], lost: Exception | None
) -> list[tuple[PlannedRun, Outcome]]:
    """Return what became of each run; one that began and left no answer has failed."""
    found = []
    for run in runs:
        outcome = outcome_of(folder, run.number)
        if outcome.state == RUNNING:
            logs = f"; logs are in {folder / LOGS}" if (folder / LOGS).is_dir() else ""
            cause = f"its process ended without an answer (out of memory?){logs}"
            outcome = replace(outcome, state=FAILED, cause=cause)
        elif outcome.state == WAITING and lost is not None:
            cause = f"it never began; {type(lost).__name__}: {' '.join(str(lost).split())[:200]}"
            outcome = replace(outcome, state=FAILED, cause=cause)
        found.append((run, outcome))
    return found
