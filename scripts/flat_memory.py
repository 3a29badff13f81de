"""Measure time and peak memory of runs with more and more documents.

Every run has a process of its own, the model tiny-random and rows that are made here. One run a
size has the unsteered cell alone: what its documents take by themselves. Prints a Markdown table.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

PAIRS, SELECT = 60, 0.2
METHODS = ("none", "sadi-head")
SETTINGS = ("task=pairs", "task.files.identify=[identify.jsonl]", "task.files.test=[test.jsonl]",
            "model=tiny-random", f"task.n_pairs={PAIRS}")  # fmt: skip


def main() -> None:
    """Run every size with one cell and with the whole grid, and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, nargs="+", default=[1000, 3000, 10_000])
    args = parser.parse_args()
    jobs = [(count, method) for count in args.documents for method in METHODS]
    print("| documents | cells | rows | seconds | peak memory, MB |")
    print("| ---: " * 5 + "|", flush=True)
    for count, method in tqdm(jobs, desc="measuring", disable=None):
        with tempfile.TemporaryDirectory() as folder:
            cells, seconds, peak = measure(Path(folder), count, method)
        row = f"| {count:,} | {cells} | {count * cells:,} | {seconds:.0f} | {peak:.0f} |"
        print(row, flush=True)


def measure(folder: Path, count: int, method: str) -> tuple[int, float, float]:
    """Return the cells, the seconds and the most resident memory in MB of one run."""
    n_select = int(count * SELECT)
    rows = made_rows(PAIRS + count)
    write(folder / "identify.jsonl", rows[: PAIRS + n_select])
    write(folder / "test.jsonl", rows[PAIRS + n_select :])
    sizes = [f"task.n_select={n_select}", f"task.n_test={count - n_select}"]
    places = [f"task.data_dir={folder}", f"runs_dir={folder / 'runs'}"]
    command = [sys.executable, "-m", "sadi_bench", *SETTINGS, *sizes, *places, f"method={method}"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    seconds = time.perf_counter() - start
    (result,) = folder.glob("runs/*/result.json")
    counts = json.loads(result.read_text(encoding="utf-8"))["sadi_bench"]["counts"]
    unit = 1 if sys.platform == "darwin" else 1024
    return counts["cells"], seconds, usage.ru_maxrss * unit / 1e6


def made_rows(count: int) -> list[dict[str, str]]:
    """Ask as many sums, yes or no."""
    rng = random.Random(0)
    rows = []
    for number in range(count):
        one, other, limit = rng.randrange(100), rng.randrange(100), rng.randrange(200)
        right, wrong = ("yes", "no") if one + other > limit else ("no", "yes")
        prompt = f"Sum {number}: are {one} and {other} more than {limit}?"
        rows.append({"prompt": prompt, "positive": right, "negative": wrong})
    return rows


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
