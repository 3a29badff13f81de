"""Jobs that submitit has started and the launcher no longer waits for."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

LOGS = ".submitit"
"""Where submitit keeps a folder a job, below the sweep's."""
EVERY = 10  # seconds between two questions to Slurm


class Submitted:
    """Find the jobs in a sweep's folder; `cluster` is slurm, local, or None without submitit."""

    def __init__(self, folder: Path, cluster: str | None) -> None:
        self._folder, self._cluster = folder / LOGS, cluster

    def wait(self) -> None:
        """Wait until no job is queued or running."""
        if self._cluster == "local":
            for job in self._jobs():
                with suppress(ChildProcessError):  # it has ended, and was asked before
                    os.waitpid(int(job), 0)
        while self._cluster == "slurm" and self._queued():
            time.sleep(EVERY)

    def stop(self) -> None:
        """End the jobs; what they have finished is kept."""
        if self._cluster == "local":
            for job in self._jobs():
                with suppress(ProcessLookupError):
                    os.kill(int(job), signal.SIGINT)
            self.wait()
        elif self._cluster == "slurm" and (jobs := self._jobs()):
            subprocess.run(["scancel", *jobs], check=False)

    def _jobs(self) -> list[str]:
        """Return the jobs' ids: a process's, a Slurm job's, or 17_0 of an array."""
        folders = self._folder.iterdir() if self._folder.is_dir() else ()
        ids = {path.name.partition("_")[0] for path in folders if path.is_dir()}
        return sorted(job for job in ids if job.isdigit())  # one is named %j

    def _queued(self) -> bool:
        asked = subprocess.run(
            ["squeue", "--noheader", "--me", "--format=%F"], capture_output=True, text=True
        )
        return asked.returncode == 0 and not {*asked.stdout.split()}.isdisjoint(self._jobs())
