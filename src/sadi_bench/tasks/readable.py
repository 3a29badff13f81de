"""Documents as a person reads them: prompt and answers as texts, and the row's own columns."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from sadi_bench.tasks.quiet import quiet_libraries
from sadi_bench.tasks.recipe import NO_SIDES
from sadi_bench.tasks.task import GOLD, GROUP, TARGET, Task

_OURS = (GOLD, GROUP, TARGET)  # columns that every row got from us; its doc_id stays


def readable_rows(
    task: Task, split: str, *, chat_template: Callable | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a row a document of a split, in its order: prompt, choices, gold and row.

    `prompt` is all that the model reads before an answer, demonstrations included: as it was asked
    where the split's requests are built, else as `chat_template` makes it. `choices` are the
    answers; of a text to write, the sides of its pair, if any. `gold` is the place of the right one
    among them, or None. `row` has doc_id and the row's own columns as JSON can hold them.
    """
    harness = task.of(split)
    asked = first_requests(harness, task.seed, chat_template)
    for number, doc in enumerate(harness.test_docs()):
        gold = doc[GOLD]
        yield {
            "prompt": asked[number].args[0],
            "choices": _choices(task, harness, doc),
            "gold": None if gold == NO_SIDES else gold,
            "row": {key: _plain(value) for key, value in doc.items() if key not in _OURS},
        }


def first_requests(
    harness: ConfigurableTask, seed: int, chat_template: Callable | None
) -> dict[int, Instance]:
    """Return each document's first request; builds them where they are not built yet."""
    if not getattr(harness, "instances", None):  # lm-eval gives it none before it builds them
        harness.set_fewshot_seed(seed)
        with quiet_libraries():
            harness.build_all_requests(
                apply_chat_template=chat_template is not None, chat_template=chat_template
            )
    found: dict[int, Instance] = {}
    for instance in sorted(harness.instances, key=lambda instance: instance.idx):
        found.setdefault(instance.doc_id, instance)
    return found


def _choices(task: Task, harness: ConfigurableTask, doc: dict[str, Any]) -> list[str]:
    if not task.generates:
        return list(harness.doc_to_choice(doc))
    rule = task.spec.doc_to_choice
    return list(harness.doc_to_choice(doc, rule) or ()) if rule else []


def _plain(value: Any) -> Any:
    """Return what JSON can hold: other things as texts, and what is no number as null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)
