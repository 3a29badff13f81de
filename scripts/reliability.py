"""Kill, crowd, starve and damage runs, and count what survives: `make reliability`.

    python scripts/reliability.py [--kills 100] [--seed 0] [--to docs/reliability.md]

Every trial works in a folder and a cache of its own, on tiny-random and rows made here. A trial
survives where the same command, run again, ends with the bytes of a run that nothing disturbed.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

COMPARED = "grid.parquet", "docs.jsonl", "elements.csv", "steering.safetensors"
COMMON = ("model=tiny-random", "task=pairs", "task.data_dir=pairs.jsonl", "task.n_pairs=60",
          "task.n_select=60", "task.n_test=60", "token_budget=300")  # fmt: skip
RUNS = {
    "choices": ("method=sadi-head", "method.top_k=[1,2,4]", "method.strength=[1,5]"),
    "probes": ("method=iti", "method.top_k=2", "method.alpha=[5,15]"),
    "fine-tuning": ("method=none", "finetune=lora", "finetune.epochs=4"),
}
LIMITS = (2_000, 8_000, 20_000, 60_000, 200_000)
"""Bytes of a file at most: a disk that is full there."""


@dataclass
class Count:
    """Count the trials of one kind."""

    kind: str
    tries: int = 0
    survived: int = 0
    redone: float = 0.0
    faults: list[str] = field(default_factory=list)

    def add(self, fault: str | None, redone: float = 0.0) -> None:
        """Take down one trial; `fault` says what was wrong."""
        self.tries += 1
        self.redone += redone
        if fault:
            self.faults.append(fault)
        else:
            self.survived += 1

    def row(self) -> str:
        """Return a row of the table."""
        redone = f"{self.redone:.0f}" if self.redone else ""
        lost = self.tries - self.survived
        return f"| {self.kind} | {self.tries} | {self.survived} | {lost} | {redone} |"


@dataclass(frozen=True)
class Place:
    """Run commands in a folder with a cache of its own."""

    folder: Path

    @classmethod
    def new(cls, base: Path) -> "Place":
        """Make a folder with rows to run on."""
        folder = Path(tempfile.mkdtemp(dir=base))
        draw = random.Random(0)
        words = [f"word{i}" for i in range(200)]
        with (folder / "pairs.jsonl").open("w") as file:
            for _ in range(200):
                prompt = " ".join(draw.choices(words, k=12))
                right, wrong = draw.sample(words, 2)
                row = {"prompt": prompt, "positive": f" {right}", "negative": f" {wrong}"}
                file.write(json.dumps(row) + "\n")
        return cls(folder)

    def start(self, *arguments: str, limit: int | None = None) -> subprocess.Popen:
        """Start a command; `limit` bounds the bytes of every file that it writes."""

        def starved() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        env = os.environ | {"SADI_BENCH_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "sadi_bench", *arguments],
            cwd=self.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=starved if limit else None,
        )

    def run(self, *arguments: str, limit: int | None = None) -> tuple[int, str]:
        """Run a command to its end; returns its exit code and what it complained of."""
        process = self.start(*arguments, limit=limit)
        out, err = process.communicate()
        return process.returncode, err if process.returncode else out

    def bytes(self) -> dict[str, bytes]:
        """Return what a finished run consists of."""
        (path,) = (self.folder / "results" / "runs").iterdir()
        return {name: (path / name).read_bytes() for name in COMPARED}


def fault_of(place: Place, command: tuple[str, ...], wanted: dict[str, bytes]) -> str | None:
    """Run a command once more, and say what is not as in the undisturbed run."""
    code, said = place.run(*command)
    if code:
        return f"exit code {code}: {said.strip()[-300:]}"
    found = place.bytes()
    differ = [name for name, content in wanted.items() if found[name] != content]
    return f"{', '.join(differ)} differ" if differ else None


def killed(base: Path, kills: int, draw: random.Random) -> Iterator[Count]:
    """Kill runs at random moments; after ten kills each must end as if nothing had been."""
    bar = tqdm(total=kills, desc="kill -9", disable=None)
    for name, method in RUNS.items():
        command, count = (*COMMON, *method), Count(f"kill -9, {name}")
        calm = Place.new(base)
        started = time.monotonic()
        code, said = calm.run(*command)
        assert code == 0, said
        whole, wanted = time.monotonic() - started, calm.bytes()
        for _ in range(max(1, kills // len(RUNS) // 10)):
            place, spent = Place.new(base), 0.0
            for _ in range(10):
                process, started = place.start(*command), time.monotonic()
                try:
                    process.wait(timeout=draw.uniform(0.2, 1.1) * whole)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                process.communicate()
                spent += time.monotonic() - started
                bar.update()
                if process.returncode != -signal.SIGKILL:  # it was done before
                    shutil.rmtree(place.folder / "results", ignore_errors=True)
            started = time.monotonic()
            fault = fault_of(place, command, wanted)
            count.add(fault, spent + time.monotonic() - started - whole)
        yield count


def crowded(base: Path) -> Iterator[Count]:
    """Start two and four processes on one run and one empty cache."""
    for processes in (2, 4):
        command = (*COMMON, *RUNS["fine-tuning"])
        calm, place = Place.new(base), Place.new(base)
        calm.run(*command)
        started = [place.start(*command) for _ in range(processes)]
        ended = [(each.communicate()[1], each.returncode) for each in started]
        count = Count(f"{processes} processes, one run")
        count.add(fault_of(place, command, calm.bytes()))
        wrong = [err for err, code in ended if code and "another process" not in err]
        count.faults += wrong
        yield count
        place, count = Place.new(base), Count(f"{processes} processes, one empty cache")
        started = [place.start(*command, f"runs_dir=results/runs-{i}") for i in range(processes)]
        for i, each in enumerate(started):
            err = each.communicate()[1]
            grids = list((place.folder / f"results/runs-{i}").glob("*/grid.parquet"))
            same = grids and grids[0].read_bytes() == calm.bytes()["grid.parquet"]
            count.add(None if same else err[-300:] or "another grid")
        yield count


def starved(base: Path) -> Iterator[Count]:
    """Let no file grow beyond a few sizes, so that the disk is full in one phase after another."""
    count = Count("full disk")
    for name, method in RUNS.items():
        command = (*COMMON, *method)
        calm = Place.new(base)
        calm.run(*command)
        for limit in LIMITS:
            place = Place.new(base)
            code, said = place.run(*command, limit=limit)
            lines = [line for line in said.splitlines() if line.startswith("sadi-bench: ")]
            told = code == 0 or (code == 2 and len(lines) == 1 and "Traceback" not in said)
            fault = fault_of(place, command, calm.bytes())
            count.add(fault if told else f"{name}, {limit} bytes: {code} {said[-300:]}")
    yield count


def damaged(base: Path) -> Iterator[Count]:
    """Flip one byte in every file that a run wrote or keeps in the cache."""
    command = (*COMMON, *RUNS["fine-tuning"])
    calm = Place.new(base)
    calm.run(*command)
    wanted = calm.bytes()
    run, cache = Count("flipped byte in a run"), Count("flipped byte in the cache")
    (path,) = (calm.folder / "results" / "runs").iterdir()
    for file in sorted(path.iterdir()):
        if file.name in ("log.txt", "result.json") or file.name.startswith("."):
            continue
        with flipped(file):
            code, said = calm.run("show", path.name)
            known = code == 2 and file.name in said
            run.add(None if known else f"{file.name}: {code} {said[:200]}")
    yield run
    for file in sorted((calm.folder / "cache").rglob("*")):
        if file.is_file():
            with flipped(file, back=False):
                shutil.rmtree(calm.folder / "results")
                cache.add(fault_of(calm, command, wanted))
    yield cache


class flipped:  # noqa: N801
    """Hold a file with one byte turned over."""

    def __init__(self, file: Path, back: bool = True) -> None:
        self.file, self.back, self.before = file, back, file.read_bytes()

    def __enter__(self) -> None:
        content = bytearray(self.before)
        if content:
            content[len(content) // 2] ^= 0x40
        self.file.write_bytes(content)

    def __exit__(self, *_: object) -> None:
        if self.back:
            self.file.write_bytes(self.before)


TRIALS: tuple[Callable[..., Iterator[Count]], ...] = (crowded, starved, damaged)


def main() -> None:
    """Print a row a kind of trial; exit code 1 where something was lost or wrong."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    counts = []
    with tempfile.TemporaryDirectory() as folder:
        print("| trial | tries | survived | lost or wrong | seconds done again |")
        print("|---|---|---|---|---|")
        trials = [killed(Path(folder), asked.kills, random.Random(asked.seed))]
        for trial in [*trials, *(each(Path(folder)) for each in TRIALS)]:
            for count in trial:
                counts.append(count)
                print(count.row(), flush=True)
    faults = [f"{count.kind}: {fault}" for count in counts for fault in count.faults]
    print("\n".join(faults), file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
