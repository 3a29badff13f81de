"""What follows from a task's splits: chance, common answers, a warning, a fingerprint."""

import hashlib
import json
from collections import Counter
from typing import Any

from sadi_bench.tasks.metrics import TRUE_ANSWERS
from sadi_bench.tasks.recipe import Doc
from sadi_bench.tasks.spec import Negative, OutputType, TaskSpec
from sadi_bench.tasks.splits import Splits


def common_answers(splits: Splits) -> tuple[str, ...] | None:
    """Return the answers where all scored documents have the same in the same order."""
    found = {doc.choices for doc in (*(splits.select or ()), *splits.test)}
    return found.pop() if len(found) == 1 else None


def chance_of(spec: TaskSpec, test: list[Doc]) -> float:
    """Average a uniform guess; of several true answers only the best takes part."""
    others = [doc.row[TRUE_ANSWERS] - 1 if spec.negative == Negative.untrue else 0 for doc in test]
    chances = [1 / (len(doc.choices) - n) for doc, n in zip(test, others, strict=True)]
    return sum(chances) / len(chances)


def frequent_answer(spec: TaskSpec, test: list[Doc]) -> list[str]:
    """Say so where always giving one answer beats guessing by far."""
    if spec.output_type == OutputType.generate_until or spec.negative == Negative.untrue:
        return []  # the first is right always, and no model knows that it stands first
    if len({doc.choices for doc in test}) > 1:
        return []
    gold, count = Counter(doc.gold for doc in test).most_common(1)[0]
    choices = test[0].choices
    if count / len(test) < 1 / len(choices) + 0.05:
        return []
    return [f"always answering {choices[gold]} is right on {count / len(test):.1%} of test rows"]


def fingerprint_of(spec: TaskSpec, config: dict[str, Any], splits: Splits) -> str:
    """Hash what was rendered rather than the templates: a function has no text to hash."""
    around = [str(config.get(field)) for field in ("description", "gen_prefix")]
    delimiters = [str(config.get(f)) for f in ("target_delimiter", "fewshot_delimiter")]
    digest = hashlib.sha256(json.dumps([spec.name, spec.fewshot, around, delimiters]).encode())
    for name in ("identify", "select", "test"):
        for doc in getattr(splits, name) or ():
            parts = [name, doc.doc_id, doc.prompt, doc.choices, doc.gold, doc.row]
            digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    return digest.hexdigest()
