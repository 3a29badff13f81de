"""Put tables into a folder, unless what lies there was measured on more documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sadi_bench.disk import write_atomically
from sadi_bench.errors import SettingError
from sadi_bench.results.run_dir import write_errors


@dataclass(frozen=True)
class TableFile:
    """Hold a table on its way to two files, CSV and Markdown.

    `keys` are the columns that name a row, `size` the column that counts its test documents.
    `counted` is what the command says of the table.
    """

    name: str
    frame: pd.DataFrame
    text: Sequence[str]
    counted: str
    keys: tuple[str, ...]
    size: str

    @property
    def stem(self) -> str:
        """What both files are called, without the suffix."""
        return self.name.replace("Table ", "table").replace(", ", "-").replace("/", "-")

    @property
    def rounded(self) -> pd.DataFrame:
        """The rows as the CSV has them: five digits, what is missing is empty."""
        short = self.frame.map(lambda value: f"{value:.5g}" if isinstance(value, float) else value)
        return short.where(self.frame.notna(), None)

    @property
    def markdown(self) -> str:
        """The whole Markdown file."""
        return "\n\n".join([f"# {self.name}", *(part.strip() for part in self.text)]) + "\n"


def put_tables(tables: Sequence[TableFile], to: Path) -> list[str]:
    """Write tables into the folder `to`, and say of each what became of it, one line a table.

    A table stays as it is where one of its rows was measured on more test documents than the same
    row of the new table, which may be missing there.

    Raises:
        SettingError: no table could be written, or the folder takes no files.
    """
    kept = {table.stem: reason for table in tables if (reason := _reason_to_keep(table, to))}
    if tables and len(kept) == len(tables):
        raise all_kept(list(kept.values()))
    return [kept.get(table.stem) or _put(table, to) for table in tables]


def all_kept(reasons: Sequence[str]) -> SettingError:
    """Build the error for files of which none may be replaced."""
    others = f" (So are {len(reasons) - 1} other files.)" if len(reasons) > 1 else ""
    return SettingError(reasons[0] + others)


def _put(table: TableFile, to: Path) -> str:
    with write_errors(to / table.stem, setting="to"):
        to.mkdir(parents=True, exist_ok=True)
        rows = table.rounded.to_csv(index=False, lineterminator="\n")
        contents = {"csv": rows, "md": table.markdown}
        write_atomically({to / f"{table.stem}.{k}": c.encode() for k, c in contents.items()})
    return f"{to / table.stem}.md: {table.counted}"


def _reason_to_keep(table: TableFile, to: Path) -> str | None:
    """Say why a table that is there must stay; None where it may be replaced, or is not there."""
    file = to / f"{table.stem}.csv"
    if not file.is_file():
        return None
    try:
        before = _sizes(pd.read_csv(file, keep_default_na=False), table)
    except (KeyError, ValueError):  # ValueError: what pandas says of text that is no CSV
        return f"{file}: not replaced: it is not a table of this program; delete it, or choose to=…"
    after = _sizes(table.rounded, table)
    lost = {row: size - after.get(row, 0) for row, size in before.items()}
    lost = {row: less for row, less in lost.items() if less > 0}
    if not lost:
        return None
    row = max(lost, key=lambda row: lost[row])
    others = f" (as in {len(lost) - 1} other rows)" if len(lost) > 1 else ""
    return (
        f"{to / table.stem}.md: not replaced: its row {' '.join(row)} has {before[row]:.0f} test "
        f"documents, these runs {after.get(row, 0):.0f}{others}; delete the file and its .csv, or "
        "measure as many."
    )


def _sizes(rows: pd.DataFrame, table: TableFile) -> dict[tuple[str, ...], float]:
    """Return how many test documents each measured row has."""
    names = zip(*(rows[key].astype(str) for key in table.keys), strict=True)
    return {
        name: float(size)
        for name, size in zip(names, rows[table.size], strict=True)
        if size != "" and pd.notna(size)
    }
