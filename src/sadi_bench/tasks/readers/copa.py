"""COPA's rows, from its XML."""

from pathlib import Path
from typing import Any
from xml.parsers import expat

from sadi_bench.tasks.readers.lines import BrokenRow, NumberedRows, Row


def read_copa(text: str, _path: Path) -> NumberedRows:
    """Read COPA's XML; its DOCTYPE is skipped and entity declarations are refused."""
    rows: list[tuple[int, Row]] = []
    texts: dict[str, str] = {}
    parser = expat.ParserCreate()
    parser.buffer_text = True
    item: dict[str, Any] = {}
    names = {"p": "premise", "a1": "choice1", "a2": "choice2"}

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "item":
            texts.clear()
            item.update(line=parser.CurrentLineNumber, attributes=attributes)
        item["tag"] = tag

    def characters(data: str) -> None:
        if (tag := item.get("tag")) in names:
            texts[names[tag]] = texts.get(names[tag], "") + data

    def end(tag: str) -> None:
        item["tag"] = None
        if tag == "item":
            rows.append((item["line"], _copa_row(item["line"], item["attributes"], texts)))

    def refuse(name: str, *_: Any) -> None:
        raise BrokenRow(parser.CurrentLineNumber, f"no entity declaration (found {name})")

    parser.StartElementHandler = start
    parser.CharacterDataHandler = characters
    parser.EndElementHandler = end
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise BrokenRow(error.lineno, f"well-formed XML ({error})") from error
    yield from rows


def _copa_row(line: int, attributes: dict[str, str], texts: dict[str, str]) -> Row:
    """Turn one item into a row; the label counts from 0."""
    question = attributes.get("asks-for")
    right = attributes.get("most-plausible-alternative")
    identity = attributes.get("id", "")
    if question not in ("cause", "effect") or right not in ("1", "2") or not identity.isdigit():
        raise BrokenRow(
            line,
            "an item with a numeric id, asks-for=cause|effect and most-plausible-alternative=1|2",
        )
    return {"id": int(identity), "question": question, "label": int(right) - 1, **texts}
