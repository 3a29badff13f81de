"""What every reader of a file yields, and the layouts that several of them share."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]
NumberedRows = Iterator[tuple[int, Row]]


class BrokenRow(Exception):
    """Carry the line number (on the hub: the row's) and what was expected there."""

    def __init__(self, line: int, expected: str):
        super().__init__(expected)
        self.line = line
        self.expected = expected


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Number the lines that are not empty; only a line feed ends one, U+2028 does not."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line := line.removesuffix("\r"):
            yield number, line


def csv_records(text: str) -> Iterator[tuple[int, list[str]]]:
    """Number the records by their first line, for one may span several."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise BrokenRow(line, f"a CSV record ({error})") from error
        if record is None:
            return
        if record:
            yield line, record


def csv_rows(text: str, columns: list[str]) -> NumberedRows:
    """Read a CSV with a header that has `columns`, one row a record."""
    return rows_below_header(csv_records(text), columns)


def rows_below_header(records: Iterator[tuple[int, list[str]]], columns: list[str]) -> NumberedRows:
    """Name the fields of numbered records by the first of them, which must have `columns`."""
    line, header = next(records, (1, []))
    if missing := [name for name in columns if name not in header]:
        raise BrokenRow(line, f"a header with {', '.join(missing)}")
    if twice := [name for name in dict.fromkeys(header) if header.count(name) > 1]:
        raise BrokenRow(line, f"a header that names no column twice (found {', '.join(twice)})")
    for line, record in records:
        if len(record) != len(header):
            raise BrokenRow(line, f"{len(header)} fields (found {len(record)})")
        yield line, dict(zip(header, record, strict=True))


def read_jsonl(text: str, _path: Path) -> NumberedRows:
    """Read JSON lines as they are (XCOPA, WinoGrande)."""
    for number, line in numbered_lines(text):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BrokenRow(number, f"one JSON object a line ({error.msg})") from error
        if not isinstance(row, dict):
            raise BrokenRow(number, "one JSON object a line")
        yield number, row
