"""Write the paper's tables from the finished runs of a folder, as Markdown and CSV.

python scripts/make_tables.py --model smollm2-135m --runs results/runs --out results/tables
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from sadi_bench.results.loading import load_result
from sadi_bench.results.paper import paper_tables
from sadi_bench.results.reproduction import reproduced, reproduction_markdown
from sadi_bench.results.run_dir import is_complete

EXPLAINED = (
    "Exact match in percent: the right answer is the arg-max of the whole vocabulary. `held-out`: "
    "the cell chosen on documents that are not tested on, with its 95 % interval; where a row has "
    "several seeds, their mean ± one standard deviation. `oracle`: the best cell on the test "
    "documents themselves, as the paper chose. Δ: points against the unsteered model of the same "
    "run, `*` where p < 0.05 (exact McNemar). `acc` compares the answers alone."
)


def main() -> None:
    """Write every table that has at least one run of the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--runs", type=Path, default=Path("results/runs"))
    parser.add_argument("--out", type=Path, default=Path("results/tables"))
    parser.add_argument("--options", default="", help="settings that the missing rows need")
    args = parser.parse_args()
    folders = sorted(args.runs.iterdir()) if args.runs.is_dir() else []
    results = {p.name: _facts(load_result(p)) for p in folders if is_complete(p)}
    results = {run: result for run, result in results.items() if result["model"] == args.model}
    args.out.mkdir(parents=True, exist_ok=True)
    for table in sorted(paper_tables()["table"].unique()):
        frame = reproduced(int(table), args.model, results, args.options)
        used = [results[run] for runs in frame["runs"].dropna() for run in runs.split()]
        if not used:
            continue
        stem = args.out / f"table{table}-{args.model}"
        frame.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.5g")
        text = [f"# Table {table}, {args.model}", "", _measured_with(used), "", EXPLAINED, ""]
        text += [_paper_model(int(table)), "", reproduction_markdown(frame)]
        stem.with_suffix(".md").write_text("\n".join(text), encoding="utf-8")
        print(
            f"{stem.with_suffix('.md')}: {len(used)} runs, {(frame['command'] != '').sum()} missing"
        )


def _facts(result: Mapping) -> dict:
    return {**result["sadi_bench"], "seed": result["config"]["random_seed"]}


def _measured_with(results: Iterable[Mapping]) -> str:
    """Name the sizes, the commits and the machine that the rows come from."""
    results = list(results)
    sizes = Counter(
        " / ".join(str(r["counts"].get(k, 0)) for k in ("pairs", "select", "test")) for r in results
    )
    commits = sorted({str(r["environment"]["commit"]) for r in results})
    devices = sorted(
        {f"{r['environment']['dtype']} on {r['environment']['device']}" for r in results}
    )
    return (
        f"{len(results)} runs; pairs / select / test: {', '.join(sizes)}; seed "
        f"{', '.join(sorted({str(r['seed']) for r in results}))}; commit {', '.join(commits)}; "
        f"{', '.join(devices)}."
    )


def _paper_model(table: int) -> str:
    rows = paper_tables()
    models = rows[rows["table"] == table]["model"].unique()
    return f"The paper's numbers are for {models[0]}, chosen on the test set, one run each."


if __name__ == "__main__":
    main()
