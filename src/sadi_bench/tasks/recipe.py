"""Turn a row into what is scored: its prompt, its answers, and the index of the right one.

The rules are lm-eval's (a field is a column, a template, a list or a function); templates are
compiled once here, where lm-eval compiles one per document.
"""

import ast
import reprlib
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError, meta
from lm_eval.utils import env

from sadi_bench.errors import SettingError
from sadi_bench.tasks.readers.lines import Row
from sadi_bench.tasks.spec import TaskSpec

NO_SIDES = -1  # as the hub marks rows without a label


@dataclass(frozen=True)
class Doc:
    """One row, rendered; `doc_id` is its row number in the pool it was drawn from.

    A row of generate_until without sides has no `choices`, and `gold` is NO_SIDES.
    """

    doc_id: int
    row: Row
    prompt: str
    choices: tuple[str, ...]
    gold: int
    group: str
    where: str = ""


def _reader(rule: Any, columns: set[str]) -> Callable[[Row], Any]:
    """Resolve one doc_to_* rule."""
    if callable(rule):
        return rule
    if isinstance(rule, str) and rule in columns:
        return lambda row: row[rule]
    if isinstance(rule, str):
        template = env.from_string(rule)
        return lambda row: template.render(**row)
    return lambda _row: rule


def columns_read(spec: TaskSpec, columns: Collection[str]) -> list[str]:
    """List those of `columns` that the doc_to_* rules and split_group read."""
    rules = [spec.doc_to_text, spec.doc_to_choice, spec.doc_to_target, spec.split_group]
    found: set[str] = set()
    for rule in rules:
        if isinstance(rule, str) and rule in columns:
            found.add(rule)
        elif isinstance(rule, str):
            with suppress(TemplateError):  # `render` says which template is wrong
                found |= meta.find_undeclared_variables(env.parse(rule))
    return [column for column in columns if column in found]


@dataclass(frozen=True)
class Recipe:
    """The rules of one task; where it `generates`, the choices are the two sides of a pair."""

    name: str
    doc_to_text: Any
    doc_to_choice: Any
    doc_to_target: Any
    split_group: str | None = None
    generates: bool = False

    def render(self, located: list[tuple[str, Row]], first_id: int = 0) -> list[Doc]:
        """Render rows in order, numbering them from `first_id`."""
        columns = set(located[0][1]) if located else set()
        try:
            return self._render(located, columns, first_id)
        except TemplateError as error:
            raise SettingError(
                f"task={self.name}: a doc_to_* template or task.split_group cannot be read: "
                f"{error}; the columns are {', '.join(sorted(columns))}."
            ) from error

    def _render(
        self, located: list[tuple[str, Row]], columns: set[str], first_id: int
    ) -> list[Doc]:
        text, choice, target, group = (
            self._rule(name, columns)
            for name in ("doc_to_text", "doc_to_choice", "doc_to_target", "split_group")
        )
        docs = []
        for doc_id, (where, row) in enumerate(located, start=first_id):
            prompt = text(row, where)
            if not isinstance(prompt, str):
                raise SettingError(
                    f"task.name={self.name}: its answers stand inside the prompt (doc_to_text is "
                    "an index), which pairs are not made from; choose a task whose doc_to_text is "
                    "a text."
                )
            choices = self._texts(choice(row, where), where)
            (self._check_sides if self.generates else self._check_answers)(choices, where)
            answer = target(row, where)
            if self.doc_to_target not in columns and str(answer).isdigit():
                answer = int(answer)  # a template renders text; a column's text stays text
            gold = self._gold(answer, choices, where)
            key = str(group(row, where)) if self.split_group else f"#{doc_id}"
            docs.append(Doc(doc_id, row, prompt, choices, gold, key, where))
        return docs

    def _rule(self, name: str, columns: set[str]) -> Callable[[Row, str], Any]:
        """Return what applies a rule to a row, and names the row where that fails."""
        rule = getattr(self, name)
        read = _reader(rule, columns)

        def value(row: Row, where: str) -> Any:
            try:
                return read(row)
            except Exception as error:  # a template calls functions of any kind
                named = isinstance(rule, str) and meta.find_undeclared_variables(env.parse(rule))
                used = sorted(columns.intersection(named or ()))
                found = ", ".join(f"{column}={reprlib.repr(row.get(column))}" for column in used)
                raise SettingError(
                    f"task={self.name}: {where}: task.{name} fails: {error}; the columns are "
                    f"{', '.join(sorted(columns))}; the row has {found or 'none that is needed'}; "
                    f"the answers are {self.doc_to_choice}."
                ) from error

        return value

    def _texts(self, value: Any, where: str) -> tuple[str, ...]:
        if isinstance(value, str):
            try:
                value = ast.literal_eval(value)
            except (SyntaxError, ValueError) as error:
                raise SettingError(
                    f"task={self.name}: {where}: task.doc_to_choice gives {value!r}; expected a "
                    "list of texts."
                ) from error
        if isinstance(value, dict):
            value = value.values()
        return tuple(value or ())

    def _check_answers(self, choices: tuple[str, ...], where: str) -> None:
        if any(not isinstance(choice, str) or not choice.strip() for choice in choices):
            raise SettingError(
                f"task={self.name}: {where}: an empty answer among {list(choices)}; every answer "
                "of task.doc_to_choice needs a text."
            )
        if len(choices) < 2:
            raise SettingError(
                f"task={self.name}: {where}: {len(choices)} answer; a pair needs at least 2."
            )

    def _check_sides(self, sides: tuple[str, ...], where: str) -> None:
        """Take no sides at all, or two and more of which one may be blank."""
        if any(not isinstance(side, str) or side.isspace() for side in sides):
            raise SettingError(
                f"task={self.name}: {where}: task.doc_to_choice gives {list(sides)}; every side is "
                "a text, and a blank one is the empty text."
            )
        if len(sides) == 1 or sides.count("") > 1:
            raise SettingError(
                f"task={self.name}: {where}: task.doc_to_choice gives {list(sides)}; a pair needs "
                "two sides that differ."
            )

    def _gold(self, value: Any, choices: tuple[str, ...], where: str) -> int:
        if not choices:
            return NO_SIDES
        if isinstance(value, list):
            raise SettingError(
                f"task={self.name}: {where}: several right answers; only tasks with one are "
                "supported."
            )
        if isinstance(value, str) and value in choices:
            value = choices.index(value)
        elif isinstance(value, str) and value.isdecimal():
            value = int(value)  # a csv has no numbers, only texts
        if not isinstance(value, int) or not 0 <= value < len(choices):
            raise SettingError(
                f"task={self.name}: {where}: the right answer {value!r} is none of the choices "
                f"{list(choices)}; expected 0…{len(choices) - 1} or one of their texts."
            )
        if not choices[value]:
            raise SettingError(
                f"task={self.name}: {where}: the right side is blank; only the wrong one may be."
            )
        return int(value)
