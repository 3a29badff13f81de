"""Write the finished runs of a folder as one Markdown table, each row with its run and commit.

python scripts/results_table.py results/runs > results/smollm2-135m.md
"""

import sys
from pathlib import Path

import yaml

from sadi_bench.results.formatting import seeds
from sadi_bench.results.reading import load_result
from sadi_bench.results.run_dir import CONFIG, is_complete
from sadi_bench.results.tables import markdown_table


def main(folder: str) -> None:
    """Print the table and, below it, what each row was measured with."""
    paths = [path for path in sorted(Path(folder).iterdir()) if is_complete(path)]
    results = {path.name: load_result(path) for path in paths}
    print(markdown_table(list(results.values())))
    print(
        "| run | task | method | seed | commit | dtype | pairs / select / test | cells | seconds |"
    )
    print("| --- | --- | --- | ---: | --- | --- | --- | ---: | ---: |")
    for run, result in sorted(results.items(), key=lambda item: _order(item[1])):
        ours = result["sadi_bench"]
        counts, environment = ours["counts"], ours["environment"]
        sizes = " / ".join(str(counts.get(name, 0)) for name in ("pairs", "select", "test"))
        seed = seeds(yaml.safe_load((Path(folder) / run / CONFIG).read_text()))
        row = [run, ours["task"], ours["method"], seed, environment["commit"], environment["dtype"]]
        row += [sizes, str(counts["cells"]), f"{sum(ours['seconds'].values()):.0f}"]
        print(f"| {' | '.join(map(str, row))} |")


def _order(result: dict) -> tuple[str, str]:
    return result["sadi_bench"]["task"], result["sadi_bench"]["method"]


if __name__ == "__main__":
    main(*sys.argv[1:])
