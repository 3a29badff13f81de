"""SST-2's and SST-5's rows, from lines or trees."""

import re
from pathlib import Path

from sadi_bench.tasks.readers.lines import BrokenRow, NumberedRows, numbered_lines

_LEAF = re.compile(r"\([0-4] ([^()]+)\)")


def _read_sst_fine(text: str) -> NumberedRows:
    """Read a label 0-4 and a sentence a line, or a bracketed tree a line."""
    for number, line in numbered_lines(text):
        if line[0] == "(" and line[1:2] in "01234" and (leaves := _LEAF.findall(line)):
            text = " ".join(leaves).lower()  # as the lines are, brackets written "-lrb-"
            yield number, {"text": text, "tree": True, "label": int(line[1])}
        elif re.match(r"[0-4] \S", line):
            yield number, {"text": line[2:], "tree": False, "label": int(line[0])}
        else:
            raise BrokenRow(number, "a label, a space and a sentence, or a bracketed tree")


def read_sst5(text: str, _path: Path) -> NumberedRows:
    """Read SST-5: stsa.fine.* or trees/*.txt."""
    for number, row in _read_sst_fine(text):
        yield number, {"text": row["text"], "label": row["label"]}


def read_sst2(text: str, _path: Path) -> NumberedRows:
    """Read SST-2: stsa.binary.*, or trees without the neutral ones."""
    for number, row in _read_sst_fine(text):
        if not row["tree"] and row["label"] > 1:
            raise BrokenRow(number, "label 0 or 1")
        if not row["tree"] or row["label"] != 2:
            label = int(row["label"] > 2) if row["tree"] else row["label"]
            yield number, {"text": row["text"], "label": label}
