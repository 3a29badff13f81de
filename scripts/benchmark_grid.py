"""Measure the whole grid against the field's ways of evaluating steering; `make bench`.

Each measurement runs in a process of its own, and the systems take turns, so that a slow minute of
the machine meets all of them. Writes OUT/grid.csv (every measurement), grid.md and grid.png.
"""

import argparse
import multiprocessing
import statistics
import subprocess
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from benchmark_systems import SYSTEMS, Job, measure
from tqdm import tqdm

mpl.use("Agg")
import matplotlib.pyplot as plt

CELLS, STRETCHES, PAPER_CELLS = (12, 96, 176), (1, 2, 4), 96


def main() -> None:
    """Measure, then write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="settings, such as model=llama2-7b")
    parser.add_argument("--tasks", nargs="+", default=["movie_reviews", "copa"])
    parser.add_argument("--docs", type=int, default=120)
    parser.add_argument("--sample", type=int, default=20, help="documents that (b) is timed on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    args = parser.parse_args()
    jobs, rows, commit = _jobs(args), [], _commit()
    spawn = multiprocessing.get_context("spawn")
    for number, job in enumerate(tqdm(jobs, desc="measuring", disable=None)):
        with ProcessPoolExecutor(1, mp_context=spawn) as alone:
            found = alone.submit(measure, job).result()
        values = asdict(job) | {"overrides": " ".join(job.overrides)} | asdict(found)
        rows.append({"number": number, **values.pop("facts"), **values})
    table = pd.DataFrame(rows).assign(commit=commit)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / "grid.csv", index=False)
    report = "\n".join(_report(table))
    (args.out / "grid.md").write_text(report + "\n", encoding="utf-8")
    _plot(table, args.out / "grid.png")
    print(report)


def _jobs(args: argparse.Namespace) -> list[Job]:
    """Interleave: one round of everything, then the next. The first task shows growth, too."""
    points = [(task, s, PAPER_CELLS, 1) for task in args.tasks for s in SYSTEMS]
    for task in args.tasks[:1]:
        points += [(task, "d", cells, 1) for cells in CELLS if cells != PAPER_CELLS]
        points += [(task, s, PAPER_CELLS, times) for times in STRETCHES[1:] for s in SYSTEMS]
    sizes = (args.docs, args.sample)
    overrides = tuple(args.overrides)
    jobs = [Job(s, task, overrides, *sizes, cells, times) for task, s, cells, times in points]
    return jobs * args.repeats


def _report(table: pd.DataFrame) -> list[str]:
    first = table.iloc[0]
    lines = [
        "# What a grid costs",
        "",
        f"{first['model']} ({first['parameters'] / 1e6:.0f} M parameters, {first['dtype']}, "
        f"{first['device']}, {first['threads']} threads), {first['docs']} documents, "
        f"commit {first['commit']}; median of {_repeats(table)} turns [lowest, highest]. "
        f"Made by `make bench`; every measurement is in `grid.csv`.",
        "",
        *(f"- ({key}) {name}" for key, name in SYSTEMS.items()),
        f"  (b) is timed on {first['sample']} of the documents and scaled to all.",
        "",
        "Seconds leave out loading the model and reading the pairs; peak memory is the whole "
        "process's, with both.",
        "",
        "| task | prompt tokens | cells | (a) s | (d) s | (d) / (a) | cells × (c) / (d) | "
        "cells × (b) / (d) | peak memory (d) − (a), GB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (task, stretch, cells), ours in table[table["system"] == "d"].groupby(
        ["task", "stretch", "cells"], sort=False
    ):
        same = table[(table["task"] == task) & (table["stretch"] == stretch)]
        other = {key: same[same["system"] == key] for key in "abc"}
        gigabytes = (ours["peak_bytes"].median() - other["a"]["peak_bytes"].median()) / 1e9
        lines.append(
            f"| {task} | {ours['prompt_tokens'].iloc[0]:.0f} | {cells} | "
            f"{_spread(other['a']['seconds'])} | {_spread(ours['seconds'])} | "
            f"{_ratio(ours, other['a'])} | {_ratio(other['c'], ours, cells)} | "
            f"{_ratio(other['b'], ours, cells)} | {gigabytes:+.2f} |"
        )
    return lines


def _repeats(table: pd.DataFrame) -> int:
    return int(table.groupby(["task", "system", "stretch", "cells"]).size().min())


def _ratio(above: pd.DataFrame, below: pd.DataFrame, times: int = 1) -> str:
    """Divide turn by turn: both were measured in the same minutes."""
    pairs = zip(above["seconds"], below["seconds"], strict=True)
    return _spread([times * a / b for a, b in pairs])


def _spread(values: list[float] | pd.Series) -> str:
    values = list(values)
    middle = statistics.median(values)
    digits = 2 if middle < 10 else 0
    return f"{middle:.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def _plot(table: pd.DataFrame, path: Path) -> None:
    """Show seconds against the number of cells, and against the length of the prompts."""
    task = table["task"].iloc[0]
    mine = table[table["task"] == task]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    short = mine[mine["stretch"] == 1]
    _curve(axes[0], short[short["system"] == "d"], "cells", "(d) whole grid, packed", "C0")
    for key, color, name in (("c", "C1", "(c) under hooks"), ("b", "C3", "(b) released")):
        one = short[short["system"] == key]["seconds"].median()
        axes[0].plot(CELLS, [n * one for n in CELLS], "--", color=color, label=f"{name} × cells")
    plain = short[short["system"] == "a"]["seconds"].median()
    axes[0].axhline(plain, color="0.5", label="(a) one plain evaluation")
    axes[0].set(xlabel="cells of the grid", ylabel="seconds", yscale="log", xticks=CELLS)
    paper = mine[mine["cells"] == PAPER_CELLS]
    names = {"a": "(a) plain", "b": f"(b) × {PAPER_CELLS}", "c": f"(c) × {PAPER_CELLS}", "d": "(d)"}
    for key, color in zip("abcd", ("0.5", "C3", "C1", "C0"), strict=True):
        times = PAPER_CELLS if key in "bc" else 1
        part = paper[paper["system"] == key]
        _curve(axes[1], part.assign(seconds=part["seconds"] * times), "prompt_tokens",
               names[key], color)  # fmt: skip
    axes[1].set(xlabel="mean prompt length, tokens", ylabel="seconds", yscale="log")
    for axis in axes:
        axis.legend(fontsize=8, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    first = mine.iloc[0]
    title = f"{task}, {first['model']}, {first['docs']} documents, {first['device']}"
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=130)


def _curve(axis: plt.Axes, rows: pd.DataFrame, x: str, label: str, color: str) -> None:
    found = rows.groupby(x)["seconds"].agg(["median", "min", "max"])
    below, above = found["median"] - found["min"], found["max"] - found["median"]
    axis.errorbar(found.index, found["median"], yerr=[below, above], marker="o", markersize=4,
                  capsize=2, label=label, color=color)  # fmt: skip


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
