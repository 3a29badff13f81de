"""The script that times the engine on a bare machine runs, with torch and transformers alone."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_engines_benchmark_times_all_three_grids():
    command = [sys.executable, "scripts/benchmark_engine.py", "--shape", "tiny", "--device", "cpu"]
    options = ["--docs", "6", "--tokens", "12", "--repeats", "1", "--peak", "1"]
    program = [*command, *options]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for site, cells in {"head": 96, "neuron": 60, "hidden": 176}.items():
        (line,) = (line for line in lines if line.startswith(f"{site}: {cells} cells, "))
        assert float(line.partition(" token passes/s")[0].split()[-1].replace(",", "")) > 0
    assert lines[-1].startswith("Table 1's three grids, extrapolated: ")
