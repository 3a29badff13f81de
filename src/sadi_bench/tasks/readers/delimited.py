"""Tables of one's own in text files: a header, then a row a line; every value is a text."""

from pathlib import Path

from sadi_bench.tasks.readers.lines import (
    NumberedRows,
    csv_records,
    numbered_lines,
    rows_below_header,
)


def read_csv(text: str, _path: Path) -> NumberedRows:
    """Read comma-separated values; a value in double quotes may span lines."""
    return rows_below_header(csv_records(text), [])


def read_tsv(text: str, _path: Path) -> NumberedRows:
    """Read tab-separated values; a quotation mark is a character like any other."""
    records = ((number, line.split("\t")) for number, line in numbered_lines(text))
    return rows_below_header(records, [])
