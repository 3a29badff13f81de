"""TriviaQA's rows, from the original files and from the hub."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sadi_bench.tasks.readers.lines import BrokenRow, NumberedRows, Row, read_jsonl

_CONTEXT = re.compile(r"Question: (.+)\nAnswer:", re.DOTALL)


def read_triviaqa(text: str, path: Path) -> NumberedRows:
    r"""Read JSON lines of context ("Question: …\nAnswer:"), answer and aliases."""
    for line, row in read_jsonl(text, path):
        question = _CONTEXT.fullmatch(str(row.get("context")))
        if not question:
            raise BrokenRow(line, r'a context "Question: …\nAnswer:"')
        yield line, _trivia_row(line, question[1], row.get("answer"), row.get("aliases"))


def read_triviaqa_hub(_split: str, rows: Iterable[Row]) -> NumberedRows:
    """Read mandarjoshi/trivia_qa, where the answer's texts stand in one column."""
    for number, row in enumerate(rows):
        answer = row.get("answer")
        answer = answer if isinstance(answer, dict) else {}
        yield (
            number,
            _trivia_row(number, row.get("question"), answer.get("value"), answer.get("aliases")),
        )


def _trivia_row(number: int, question: Any, answer: Any, aliases: Any) -> Row:
    texts = [question, answer, *aliases] if isinstance(aliases, list) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise BrokenRow(number, "a question, an answer and a list of aliases")
    aliases = [alias for alias in aliases if alias.strip()]
    return {"question": question, "answer": answer, "aliases": aliases}
