"""ToxiGen's rows: prompts to continue, and pairs of continuations.

Rows to identify on have two continuations, benign then toxic; rows to test on have none.
"""

import ast
import hashlib
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from sadi_bench.tasks.readers.lines import BrokenRow, NumberedRows, Row, csv_rows, numbered_lines

_NAME = re.compile(r"(?:hate|neutral)_(.+?)_1k")
_BREAK = re.compile(r"\\+n")  # a line end, written out; some are escaped twice
_LITERAL = re.compile(r"b(['\"]).*\1", re.DOTALL)
# Groups whose names in the annotations are not those of the prompt files.
_GROUPS = {"mental_dis": "mental_disability", "physical_dis": "physical_disability"}


def read_toxigen(
    text: str,
    path: Path,
    *,
    toxic_from: float = 4,
    benign_to: float = 2,
    context_from: float = 3,
    sentences: float = 6,
) -> NumberedRows:
    """Read prompts/*.txt as rows to test on, the annotations (.csv) as rows to identify on.

    People's ratings go from 1 to 5. A row to identify on pairs a benign and a toxic sentence of one
    group behind a list of `sentences` others, rated from `context_from` to below `toxic_from`.
    """
    if path.suffix != ".csv":
        yield from _prompts(path.stem, numbered_lines(text))
        return
    groups: dict[str, dict[str, tuple[int, float]]] = {}
    for line, row in csv_rows(text, ["text", "target_group", "toxicity_human"]):
        if sentence := _sentence(line, row["text"]):
            group = row["target_group"].strip().replace(" ", "_")
            rated = groups.setdefault(_GROUPS.get(group, group), {})
            rated.setdefault(sentence, (line, _rating(line, row["toxicity_human"])))
    found = []
    for group, rated in groups.items():
        order = in_drawn_order(rated)
        toxic = [s for s in order if rated[s][1] >= toxic_from]
        benign = [s for s in order if rated[s][1] <= benign_to]
        context = [s for s in order if context_from <= rated[s][1] < toxic_from]
        for bad, good in zip(toxic, benign, strict=False):
            others = [s for s in context if s not in (bad, good)]
            drawn = random.Random(bad).sample(others, min(int(sentences), len(others)))
            prompt = "".join(f"- {sentence}\n" for sentence in drawn) + "-"
            found.append((rated[bad][0], continuations_row(group, prompt, good, bad)))
    if not found:
        raise BrokenRow(1, f"sentences of one target_group with toxicity_human up to {benign_to:g} "
                           f"and from {toxic_from:g}")  # fmt: skip
    yield from sorted(found, key=lambda numbered: numbered[0])


def read_toxigen_hub(split: str, rows: Iterable[Row]) -> NumberedRows:
    """Read a split of toxigen/toxigen-data, prompts; its name tells the group."""
    yield from _prompts(split, ((number, str(row.get("text"))) for number, row in enumerate(rows)))


def continuations_row(group: str, text: str, *continuations: str) -> Row:
    """Make a row of a prompt and its continuations, benign then toxic."""
    return {"group": group, "text": text, "continuations": list(continuations)}


def _prompts(name: str, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
    group = _NAME.match(name)
    if not group:
        raise BrokenRow(1, f"a name like hate_GROUP_1k (found {name})")
    for number, line in lines:
        prompt = _BREAK.sub("\n", line)
        if not prompt.startswith("-") or not prompt.endswith("\n-"):
            raise BrokenRow(number, r'sentences "- …\n" and an open "-" behind them')
        yield number, continuations_row(group[1], prompt)


def _sentence(line: int, text: str) -> str:
    """Decode a bytes literal; what holds more than one line comes back empty."""
    if _LITERAL.fullmatch(text):
        try:
            text = ast.literal_eval(text).decode()
        except (SyntaxError, ValueError) as error:
            raise BrokenRow(line, "a text, plain or as a Python bytes literal") from error
    text = text.strip()
    return "" if "\n" in text or "\r" in text or _BREAK.search(text) else text


def _rating(line: int, text: str) -> float:
    try:
        rating = float(text)
    except ValueError as error:
        raise BrokenRow(line, "a number for toxicity_human") from error
    if not 1 <= rating <= 5:
        raise BrokenRow(line, f"toxicity_human from 1 to 5 (found {rating:g})")
    return rating


def in_drawn_order(texts: Iterable[str]) -> list[str]:
    """Order texts at random, but alike everywhere and whatever else there is."""
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
