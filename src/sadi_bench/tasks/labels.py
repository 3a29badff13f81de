"""A file's words for its labels → the answers: task.label_map."""

from typing import Any

from sadi_bench.errors import SettingError
from sadi_bench.tasks.located import LocatedRow
from sadi_bench.tasks.readers.lines import Row
from sadi_bench.tasks.spec import TaskSpec


def target_rule(spec: TaskSpec, rule: Any) -> Any:
    """Return the rule that gives a row's right answer: doc_to_target, behind the map if any.

    The row itself keeps its word.
    """
    if not spec.label_map:
        return rule
    answers = _by_text(spec)

    def answer(row: Row) -> Any:
        return answers[str(row[spec.doc_to_target])]

    return answer


def labelled(
    spec: TaskSpec, origin: str, located: list[LocatedRow]
) -> tuple[list[LocatedRow], list[str]]:
    """Keep the rows whose label the map knows, and say how many it leaves out (those of null).

    Raises:
        SettingError: a row has another label, or doc_to_target names no column.
    """
    if not spec.label_map:
        return located, []
    answers, kept, left_out = _by_text(spec), [], 0
    for where, row in located:
        if spec.doc_to_target not in row:
            raise SettingError(
                f"task.label_map: task.doc_to_target={spec.doc_to_target} names no column; the "
                f"columns are {', '.join(row)}."
            )
        label = str(row[spec.doc_to_target])
        if label not in answers:
            raise _unknown(spec, origin, where, label)
        if answers[label] is None:
            left_out += 1
        else:
            kept.append((where, row))
    note = f"{left_out:,} of {len(located):,} rows left out: task.label_map gives them null"
    return kept, [note] if left_out else []


def _by_text(spec: TaskSpec) -> dict[str, Any]:
    """Compare labels as texts: the same word is 1 in one format and "1" in another."""
    return {str(label): answer for label, answer in spec.label_map.items()}


def _unknown(spec: TaskSpec, origin: str, where: str, label: str) -> SettingError:
    hint = ""
    if any(isinstance(key, bool) for key in spec.label_map):
        hint = " (YAML reads yes and no as true and false: quote them)"
    known = ", ".join(_by_text(spec))
    return SettingError(
        f"{origin}: {where}: task.label_map has no {label!r} for {spec.doc_to_target}; it has "
        f"{known}{hint}. Add it, with null to leave such rows out."
    )
