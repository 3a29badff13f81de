"""The house: sizes, names, and no state between calls that nobody owns."""

import ast
from collections import Counter
from pathlib import Path

import pytest

import sadi_bench

SOURCES = sorted(Path(sadi_bench.__file__).parent.rglob("*.py"))
ONE_MEANING = {"__init__.py", "spec.py"}  # spec.py: what a YAML of this room may say
MOST_LINES, MOST_STATEMENT_LINES = 260, 40


def trees() -> list[tuple[Path, ast.Module]]:
    return [(file, ast.parse(file.read_text(encoding="utf-8"))) for file in SOURCES]


def test_no_file_name_stands_for_two_things():
    names = Counter(file.name for file in SOURCES if file.name not in ONE_MEANING)
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.stem)
def test_a_file_and_its_functions_can_be_read_at_once(file):
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES
    long = [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
        and node.end_lineno - node.lineno + 1 > MOST_STATEMENT_LINES
    ]
    assert long == []


def test_nothing_is_cached_in_a_module():
    found = []
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                names = [ast.unparse(each) for each in node.decorator_list]
                found += [
                    (file.name, node.name)
                    for name in names
                    if name.partition("(")[0].rpartition(".")[2] in ("cache", "lru_cache")
                ]
        for node in tree.body:
            empty = isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(
                node.value, ast.Dict | ast.List | ast.Set
            )
            if empty and not getattr(node.value, "elts", getattr(node.value, "keys", None)):
                found.append((file.name, ast.unparse(node)))
    assert found == []
