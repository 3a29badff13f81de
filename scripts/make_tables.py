"""Write the paper's tables from the finished runs of a folder, as Markdown and CSV.

python scripts/make_tables.py --model smollm2-135m --runs results/runs --out results/tables
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
import yaml

from sadi_bench.config import config_folder
from sadi_bench.results.formatting import seeds
from sadi_bench.results.paper import paper_tables
from sadi_bench.results.paper.data_sizes import data_sizes, data_sizes_markdown
from sadi_bench.results.paper.domains import domain_scores
from sadi_bench.results.paper.reproduction import paper_model, reproduced
from sadi_bench.results.paper.reproduction_text import explained, remarks, reproduction_markdown
from sadi_bench.results.paper.table_runs import result_at
from sadi_bench.results.reading import load_run
from sadi_bench.results.run_dir import is_complete

SIZES_TABLE = 9
SIZES_EXPLAINED = (
    "The paper's Table 9 holds sizes and no scores; beside the sizes here stands the model without "
    "steering, in percent with its 95 % interval. `select`: the documents that cells are chosen on."
)


def main() -> None:
    """Write every table that has at least one run of a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="default: every model that has runs")
    parser.add_argument("--runs", type=Path, default=Path("results/runs"))
    parser.add_argument("--out", type=Path, default=Path("results/tables"))
    parser.add_argument("--options", default="", help="settings that the missing rows need")
    args = parser.parse_args()
    folders = sorted(args.runs.iterdir()) if args.runs.is_dir() else []
    results = {path.name: _facts(path) for path in folders if is_complete(path)}
    args.out.mkdir(parents=True, exist_ok=True)
    for model, protocol in sorted({(r["model"], r["protocol"]) for r in results.values()}):
        if args.model in (None, model):
            kind = (model, protocol)
            theirs = {k: r for k, r in results.items() if (r["model"], r["protocol"]) == kind}
            for table in sorted(paper_tables()["table"].unique()):
                _write_table(int(table), protocol, model, theirs, args)
            _write_sizes(protocol, model, theirs, args)


def _write_table(
    table: int, protocol: str, model: str, results: Mapping, args: argparse.Namespace
) -> None:
    options = " ".join(filter(None, [_asked_by(table, protocol), args.options]))
    frame = reproduced(table, model, results, options)
    used = dict.fromkeys(run for runs in frame["runs"] for run in runs.split())
    if not used:
        return
    theirs = paper_model(table, model)
    text = [_measured_with(results[run] for run in used), explained(frame)]
    text += [f"The paper's numbers are for {theirs}, chosen on the test set, one run each."]
    text += [reproduction_markdown(frame)]
    text += remarks(frame, _make(table, protocol, model, args.options))
    missing = frame.loc[frame["command"] != "", "command"].nunique()
    name = _name(table, protocol, model)
    _write(name, frame, text, args.out, f"{len(used)} runs, {missing} missing")


def _write_sizes(protocol: str, model: str, results: Mapping, args: argparse.Namespace) -> None:
    frame = data_sizes(model, results)
    if not frame.empty:
        text = [_measured_with(results[run] for run in frame["runs"]), SIZES_EXPLAINED]
        text += [data_sizes_markdown(frame)]
        name = _name(SIZES_TABLE, protocol, model)
        _write(name, frame, text, args.out, f"{len(frame)} runs")


def _name(table: int, protocol: str, model: str) -> str:
    """Name a table; runs of the paper's protocols never share one with held-out runs."""
    return f"Table {table}, {model}" + ("" if protocol == "heldout" else f", {protocol}")


def _write(name: str, frame: pd.DataFrame, text: list[str], out: Path, counted: str) -> None:
    file = name.replace("Table ", "table").replace(", ", "-").replace("/", "-")
    short = frame.map(lambda value: f"{value:.5g}" if isinstance(value, float) else value)
    short.where(frame.notna(), None).to_csv(out / f"{file}.csv", index=False)
    lines = "\n\n".join([f"# {name}", *(part.strip() for part in text)])
    (out / f"{file}.md").write_text(lines + "\n", encoding="utf-8")
    print(f"{out / file}.md: {counted}")


def _facts(path: Path) -> dict:
    """Read what the tables need of a run; its grid only where the paper prints groups (MMLU)."""
    ours = result_at(path)
    ours["paper_pairs"] = ours["config"]["task"].get("paper_pairs")
    if ours["paper"]["task"] == "mmlu":
        ours["domains"] = domain_scores(load_run(path))
    return ours


def _asked_by(table: int, protocol: str) -> str:
    """Write the settings that a missing run needs: the protocol's, and the sweep's own grid."""
    sweep = yaml.safe_load((config_folder() / "experiment" / f"table{table}.yaml").read_text())
    grid = sweep.get("method", {}).items()
    options = [
        f"'method.{key}={json.dumps(values, separators=(',', ':'))}'" for key, values in grid
    ]
    return " ".join([*options, *([] if protocol == "heldout" else [f"protocol={protocol}"])])


def _make(table: int, protocol: str, model: str, options: str) -> str:
    """Write the one command for a whole table, with the sizes that the missing rows need."""
    limits = {option.partition("=")[2] for option in options.split()}
    limit = f" LIMIT={limits.pop()}" if len(limits) == 1 else ""
    kind = "" if protocol == "heldout" else f" PROTOCOL={protocol}"
    return f"make table{table} MODEL={model}{limit}{kind}"


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
        f"{', '.join(sorted({seeds(r['config']) for r in results}))}; commit {', '.join(commits)}; "
        f"{', '.join(devices)}."
    )


if __name__ == "__main__":
    main()
