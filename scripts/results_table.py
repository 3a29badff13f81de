"""Write the finished runs of a folder as one Markdown table, each row with its run and commit.

python scripts/results_table.py results/runs > results/smollm2-135m.md
"""

import sys
from pathlib import Path

from sadi_bench.results.formatting import seeds
from sadi_bench.results.paper.table_runs import finished_runs, named_result
from sadi_bench.results.tables import markdown_table


def main(folder: str) -> None:
    """Print the table and, below it, what each row was measured with."""
    results = {path.name: named_result(path) for path in finished_runs(Path(folder))}
    print(markdown_table(list(results.values())))
    print(
        "| run | task | method | seed | commit | dtype | pairs / select / test | cells | seconds |"
    )
    print("| --- | --- | --- | ---: | --- | --- | --- | ---: | ---: |")
    for run, result in sorted(results.items(), key=lambda item: _order(item[1])):
        ours = result["sadi_bench"]
        counts, environment = ours["counts"], ours["environment"]
        sizes = " / ".join(str(counts.get(name, 0)) for name in ("pairs", "select", "test"))
        seed = seeds(ours["config"])
        row = [run, ours["task"], ours["method"], seed, environment["commit"], environment["dtype"]]
        row += [sizes, str(counts["cells"]), f"{sum(ours['seconds'].values()):.0f}"]
        print(f"| {' | '.join(map(str, row))} |")


def _order(result: dict) -> tuple[str, str]:
    return result["sadi_bench"]["task"], result["sadi_bench"]["method"]


if __name__ == "__main__":
    main(*sys.argv[1:])
