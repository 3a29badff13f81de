"""Hold `sadi-bench plan` against the runs that it plans, back to back; prints a table.

Each task's plan and run have processes of their own. What else the machine does moves both; the
grid is small, so that a run takes minutes. SADI_BENCH_DATA names the folder of the original files.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from tempfile import TemporaryDirectory

CHOSEN = "model=smollm2-135m", "method.top_k=[2,6]", "method.strength=[5,10,20,35,50,80]"
SIZES = {
    "copa": ("task.n_pairs=100", "task.n_select=100", "task.n_test=100"),
    "boolq": ("task.n_pairs=32", "task.n_select=50", "task.n_test=50"),
    "triviaqa": ("task.n_pairs=100", "task.n_select=30", "task.n_test=30"),
    "movie_reviews": ("task.n_pairs=100", "task.n_select=150", "task.n_test=150"),
}


def planned(words: list[str]) -> tuple[float, float, float, float]:
    """Return the plan's seconds, its memory in GB, its TFLOP, and how long planning took."""
    from sadi_bench.composing import composed
    from sadi_bench.planning.planner import Planner

    started = time.perf_counter()
    plan = Planner().plan(composed(*words))
    took = time.perf_counter() - started
    return plan.here, plan.room.memory / 1e9, plan.left.flops / 1e12, took


def ran(words: list[str]) -> tuple[float, float]:
    """Return the run's seconds and its peak memory in GB."""
    from sadi_bench.composing import composed
    from sadi_bench.experiment import run

    started = time.perf_counter()
    result = run(composed(*words)).result["sadi_bench"]
    return time.perf_counter() - started, result["environment"]["peak_memory_bytes"] / 1e9


def main() -> None:
    """Measure task by task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=list(SIZES))
    parser.add_argument("--settings", nargs="*", default=[], help="settings for every run")
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    print(
        "| task | TFLOP | planned s | run s | planned / run | planned GB | peak GB | planning s |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for task in args.tasks:
        with TemporaryDirectory() as folder:
            words = [f"task={task}", f"runs_dir={folder}", *CHOSEN, *SIZES[task], *args.settings]
            with ProcessPoolExecutor(1, mp_context=spawn) as alone:
                seconds, memory, flops, took = alone.submit(planned, words).result()
            with ProcessPoolExecutor(1, mp_context=spawn) as alone:
                truth, peak = alone.submit(ran, words).result()
        row = f"{flops:.2f} | {seconds:.0f} | {truth:.0f} | {seconds / truth:.2f}"
        print(f"| {task} | {row} | {memory:.2f} | {peak:.2f} | {took:.0f} |", flush=True)


if __name__ == "__main__":
    main()
