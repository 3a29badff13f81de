"""BoolQ's rows, as its authors or SuperGLUE wrote them."""

from pathlib import Path

from sadi_bench.tasks.readers.lines import NumberedRows, read_jsonl


def read_boolq(text: str, path: Path) -> NumberedRows:
    """Read BoolQ in its own layout, or SuperGLUE's, whose passages open with "Title -- "."""
    for number, row in read_jsonl(text, path):
        if "answer" not in row and "label" in row:
            row["answer"] = row["label"]
            row["passage"] = str(row.get("passage", "")).partition(" -- ")[2] or row.get("passage")
        yield number, row
