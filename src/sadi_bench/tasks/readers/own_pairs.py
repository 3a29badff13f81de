"""Pairs of one's own: a prompt, what should follow it and what should not."""

import hashlib
import json
from pathlib import Path

from sadi_bench.tasks.readers.delimited import read_csv, read_tsv
from sadi_bench.tasks.readers.lines import BrokenRow, NumberedRows, read_jsonl

TEXTS = ("prompt", "positive", "negative")
_BY_SUFFIX = {".csv": read_csv, ".tsv": read_tsv}


def read_pairs(text: str, path: Path) -> NumberedRows:
    """Read prompt, positive and negative as a question with two answers: `choices` and `label`.

    Which of the two stands first is drawn from the row's texts: of equal scores the first wins, so
    a fixed place would be worth something.
    """
    for line, row in _BY_SUFFIX.get(path.suffix, read_jsonl)(text, path):
        texts = [row.get(name) for name in TEXTS]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise BrokenRow(line, f"a text for each of {', '.join(TEXTS)}")
        _, positive, negative = texts
        if positive == negative:
            raise BrokenRow(line, f"a positive and a negative that differ (both {positive!r})")
        label = hashlib.sha256(json.dumps(texts).encode()).digest()[0] % 2
        choices = [negative, positive] if label else [positive, negative]
        yield line, {**row, "choices": choices, "label": label}
