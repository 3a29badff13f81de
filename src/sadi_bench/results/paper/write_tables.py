"""Write the paper's tables from the finished runs of a folder, as Markdown and CSV."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from sadi_bench.errors import SettingError
from sadi_bench.provenance import config_folder
from sadi_bench.results.formatting import seeds
from sadi_bench.results.paper import paper_tables
from sadi_bench.results.paper.data_sizes import data_sizes, data_sizes_markdown
from sadi_bench.results.paper.domains import domain_scores
from sadi_bench.results.paper.reproduction import paper_model, reproduced
from sadi_bench.results.paper.reproduction_text import explained, remarks, reproduction_markdown
from sadi_bench.results.paper.table_files import TableFile, put_tables
from sadi_bench.results.paper.table_runs import Result, finished_runs, of_model, result_at
from sadi_bench.results.reading import load_run

FOLDER = "tables"
"""Where tables go beside the runs, unless another place is asked for."""
SIZES_TABLE = 9
SIZES_EXPLAINED = (
    "The paper's Table 9 holds sizes and no scores; beside the sizes here stands the model without "
    "steering, in percent with its 95 % interval. `select`: the documents that cells are chosen on."
)


@dataclass(frozen=True, order=True)
class Kind:
    """Say whose runs a table is made of: one model's under one protocol.

    `options` are settings that the missing rows need.
    """

    model: str
    protocol: str
    options: str

    def named(self, table: int) -> str:
        """Name a table; runs of the paper's protocols never share one with held-out runs."""
        protocol = "" if self.protocol == "heldout" else f", {self.protocol}"
        return f"Table {table}, {self.model}{protocol}"


def write_tables(
    runs_dir: Path, to: Path | None = None, model: str | None = None, options: str = ""
) -> list[str]:
    """Write every table that the finished runs of a folder have a row of; return a line a table.

    `to` is `runs_dir/tables` where it is not given, `model` every model that has runs. `options`
    stand behind the commands that make missing rows. What `put_tables` keeps is said.

    Raises:
        SettingError: there are no runs, none of the model, none that a table has a row for, or no
            table may be replaced.
    """
    results = {path.name: _facts(path) for path in finished_runs(runs_dir)}
    models = of_model(results, model)
    by_kind: dict[Kind, dict[str, Result]] = {}
    for run, result in results.items():
        if result["model"] in models:
            kind = Kind(result["model"], result["protocol"], options)
            by_kind.setdefault(kind, {})[run] = result
    tables = [table for kind in sorted(by_kind) for table in _tables_of(kind, by_kind[kind])]
    if not tables:
        raise SettingError(
            f"runs_dir={runs_dir}: no table of the paper has a row for its {len(results)} runs; "
            "`sadi-bench experiment=table4` makes a table's, chosen by the paper's metric."
        )
    return put_tables(tables, to or runs_dir / FOLDER)


def _facts(path: Path) -> dict[str, object]:
    """Read what the tables need of a run; its grid only where the paper prints groups (MMLU)."""
    ours = result_at(path)
    if ours["paper"]["task"] == "mmlu":
        run = load_run(path)
        ours["domains"] = domain_scores(run.docs, run.grid, ours["protocols"])
    return ours


def _tables_of(kind: Kind, results: Mapping[str, Result]) -> Iterator[TableFile]:
    for table in sorted(paper_tables()["table"].unique()):
        found = _scores(int(table), kind, results)
        if found is not None:
            yield found
    sizes = data_sizes(kind.model, results)
    if not sizes.empty:
        text = [_measured_with(results[run] for run in sizes["runs"]), SIZES_EXPLAINED]
        text += [data_sizes_markdown(sizes)]
        keys = ("task", "shots", "pairs_from")
        name, counted = kind.named(SIZES_TABLE), f"{len(sizes)} runs"
        yield TableFile(name, sizes, text, counted, keys, size="test")


def _scores(table: int, kind: Kind, results: Mapping[str, Result]) -> TableFile | None:
    """Make a table of scores; None where no run has a row in it."""
    options = " ".join(filter(None, [_asked_by(table, kind.protocol), kind.options]))
    frame = reproduced(table, kind.model, results, options)
    used = dict.fromkeys(run for runs in frame["runs"] for run in runs.split())
    if not used:
        return None
    theirs = paper_model(table, kind.model)
    text = [_measured_with(results[run] for run in used), explained(frame)]
    text += [f"The paper's numbers are for {theirs}, chosen on the test set, one run each."]
    text += [reproduction_markdown(frame), *remarks(frame, _make(table, kind))]
    missing = frame.loc[frame["command"] != "", "command"].nunique()
    keys, counted = ("task", "method", "shots", "metric"), f"{len(used)} runs, {missing} missing"
    return TableFile(kind.named(table), frame, text, counted, keys, size="n")


def _asked_by(table: int, protocol: str) -> str:
    """Write the settings that a missing run needs: the protocol's, and the sweep's own grid."""
    sweep = yaml.safe_load((config_folder() / "experiment" / f"table{table}.yaml").read_bytes())
    grid = sweep.get("method", {}).items()
    options = [
        f"'method.{key}={json.dumps(values, separators=(',', ':'))}'" for key, values in grid
    ]
    return " ".join([*options, *([] if protocol == "heldout" else [f"protocol={protocol}"])])


def _make(table: int, kind: Kind) -> str:
    """Write the one command for a whole table, with the sizes that the missing rows need."""
    limits = {option.partition("=")[2] for option in kind.options.split()}
    limit = f" LIMIT={limits.pop()}" if len(limits) == 1 else ""
    protocol = "" if kind.protocol == "heldout" else f" PROTOCOL={kind.protocol}"
    return f"make table{table} MODEL={kind.model}{limit}{protocol}"


def _measured_with(results: Iterable[Result]) -> str:
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
