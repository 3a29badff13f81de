"""TruthfulQA's rows, from the original files and from the hub."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sadi_bench.tasks.readers.lines import BrokenRow, NumberedRows, Row, csv_rows

_CSV_COLUMNS = ["Question", "Best Answer", "Correct Answers", "Incorrect Answers"]


def read_truthfulqa(text: str, path: Path) -> NumberedRows:
    """Read mc_task.json (texts and their 0 or 1), or TruthfulQA.csv (answers between "; ")."""
    if path.suffix == ".json":
        for line, row in _json_objects(text):
            yield line, _labelled_row(line, row, row.get("mc1_targets"), row.get("mc2_targets"))
        return
    for line, row in csv_rows(text, _CSV_COLUMNS):
        question, best, true, false = (row[column] for column in _CSV_COLUMNS)
        answers = _closed(best), *(_closed(listed) for listed in (true, false))
        yield line, _truthful_row(line, question.strip(), *answers)


def read_truthfulqa_hub(_split: str, rows: Iterable[Row]) -> NumberedRows:
    """Read truthfulqa/truthful_qa, multiple_choice: lists of choices and of their labels."""
    for number, row in enumerate(rows):
        targets = []
        for name in ("mc1_targets", "mc2_targets"):
            lists = row.get(name)
            lists = lists if isinstance(lists, dict) else {}
            choices, labels = lists.get("choices") or [], lists.get("labels") or []
            targets.append(dict(zip(choices, labels, strict=False)))
        yield number, _labelled_row(number, row, *targets)


def _json_objects(text: str) -> Iterator[tuple[int, Row]]:
    """Number the objects of a JSON list by the line each begins on."""
    expected = "a JSON list of questions with mc1_targets and mc2_targets"
    decoder, between = json.JSONDecoder(), re.compile(r"[\s,\[]*")
    place, line, counted = between.match(text).end(), 1, 0
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise BrokenRow(error.lineno, f"{expected} ({error.msg})") from error
        if not isinstance(value, dict):
            raise BrokenRow(line, expected)
        yield line, value
        place = between.match(text, end).end()


def _closed(listed: str) -> list[str]:
    """Part answers at semicolons and end each with a full stop, as mc_task.json does."""
    answers = [answer.strip() for answer in listed.split(";") if answer.strip()]
    return [answer if answer.endswith(".") else f"{answer}." for answer in answers]


def _labelled_row(number: int, row: Row, mc1: Any, mc2: Any) -> Row:
    mc1, mc2 = (targets if isinstance(targets, dict) else {} for targets in (mc1, mc2))
    best = [answer for answer, true in mc1.items() if true]
    true = [answer for answer, true in mc2.items() if true]
    false = [answer for answer, true in mc2.items() if not true]
    return _truthful_row(number, row.get("question"), best, true, false)


def _truthful_row(
    number: int, question: Any, best: list[str], true: list[str], false: list[str]
) -> Row:
    """List the best answer, the other true ones, then the false ones, each once.

    What is listed as both is false, as in mc_task.json.
    """
    true = [answer for answer in dict.fromkeys(best + true) if answer not in false]
    if not isinstance(question, str) or len(best) != 1 or true[:1] != best or not false:
        raise BrokenRow(number, "a question, one best answer that is true, and a false answer")
    choices = true + list(dict.fromkeys(false))
    return {"question": question, "choices": choices, "true_answers": len(true)}
