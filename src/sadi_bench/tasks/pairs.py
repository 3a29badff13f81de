"""Contrastive pairs: a prompt of the identify split with its right and a wrong answer."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from lm_eval.api.instance import Instance

from sadi_bench.errors import SettingError
from sadi_bench.tasks.metrics import TRUE_ANSWERS
from sadi_bench.tasks.quiet import quiet_libraries
from sadi_bench.tasks.readers.lines import Row
from sadi_bench.tasks.spec import Negative
from sadi_bench.tasks.task import DOC_ID, GOLD, Task


@dataclass(frozen=True)
class ContrastivePair:
    """`prompt + positive` is the very text that is scored: the delimiter opens the answer.

    A blank side is the empty text: it has no token of its own after the prompt.
    """

    prompt: str
    positive: str
    negative: str
    doc_id: int


def contrastive_pairs(
    task: Task, *, seed: int, chat_template: Callable | None = None
) -> list[ContrastivePair]:
    """Make one pair of every identify row, from the requests that lm-eval would score."""
    task.identify.set_fewshot_seed(seed)  # its sampler goes on where the last build left it
    with quiet_libraries():
        task.identify.build_all_requests(
            apply_chat_template=chat_template is not None, chat_template=chat_template
        )
    answers: dict[int, list[Instance]] = {}
    for instance in task.identify.instances:
        answers.setdefault(instance.doc_id, []).append(instance)
    # As in lm-eval's own requests: a chat template ends where an answer begins.
    delimiter = "" if chat_template else task.spec.target_delimiter
    return [_pair(task, instances, seed, delimiter) for instances in answers.values()]


def pairs_from_texts(
    texts: Sequence[tuple[str, str, str]], *, delimiter: str = " "
) -> list[ContrastivePair]:
    """Make pairs of (prompt, positive, negative) texts.

    `delimiter` stands between a prompt and its answer, unless white space does already. A blank
    negative is the empty text: nothing after the prompt.

    Raises:
        SettingError: no pairs, a blank prompt or positive, or two sides that are the same.
    """
    if not texts:
        raise SettingError("pairs: none are given; a method learns from at least one.")
    found = []
    for index, (prompt, positive, negative) in enumerate(texts):
        blank = [n for n, text in (("prompt", prompt), ("positive", positive)) if not text.strip()]
        if blank:
            raise SettingError(f"pairs[{index}]: the {blank[0]} is blank; give it a text.")
        if positive == negative:
            raise SettingError(f"pairs[{index}]: positive and negative are both {positive!r}.")
        right, wrong = (
            answer if prompt[-1:].isspace() or answer[:1].isspace() else delimiter + answer
            for answer in (positive, negative)
        )
        found.append(ContrastivePair(prompt, right, wrong if negative.strip() else "", index))
    return found


def as_released(pairs: Sequence[ContrastivePair]) -> list[ContrastivePair]:
    """Strip the prompts and put one space before an answer, as the released code does for pairs.

    What is tested keeps its line end: COPA's prompts have one (arXiv 2410.12299).
    """
    return [
        replace(
            pair,
            prompt=pair.prompt.strip(),
            positive=f" {pair.positive.strip()}",
            negative=pair.negative and f" {pair.negative.strip()}",
        )
        for pair in pairs
    ]


def content_free_pairs(
    task: Task,
    pairs: Sequence[ContrastivePair],
    texts: Sequence[str],
    *,
    seed: int,
    chat_template: Callable | None = None,
) -> list[ContrastivePair]:
    """Put each text in the place of all that a document says, and pair the pairs' answers anew.

    Columns of texts are replaced, lists of texts entry by entry; every answer stands in a pair.
    """
    if task.generates or task.spec.negative == Negative.untrue:
        raise SettingError(
            f"task={task.name}: its answers differ from document to document, so no constant an "
            "answer can be learnt; choose another method than calibrate."
        )
    answers = list(dict.fromkeys(a for pair in pairs for a in (pair.positive, pair.negative)))
    doc, found = task.identify.test_docs()[0], []
    for text in texts:
        empty = {column: _replaced(value, text) for column, value in doc.items()}
        task.identify.set_fewshot_seed(seed)
        prompt = task.identify.fewshot_context(
            empty,
            num_fewshot=task.spec.fewshot,
            apply_chat_template=chat_template is not None,
            chat_template=chat_template,
            gen_prefix=task.identify.doc_to_prefix(empty),
        )
        found += [ContrastivePair(prompt, *two, doc[DOC_ID]) for two in pairwise(answers)]
    return found


def _replaced(value: object, text: str) -> object:
    if isinstance(value, list):
        return [_replaced(entry, text) for entry in value]
    return text if isinstance(value, str) else value


def _pair(task: Task, instances: list[Instance], seed: int, delimiter: str) -> ContrastivePair:
    doc = instances[0].doc
    gold, doc_id = doc[GOLD], doc[DOC_ID]
    texts = _answers(task, instances, delimiter)
    # A generator of its own per document: its negative does not depend on how many pairs there are.
    generator = random.Random(f"{seed}/{doc_id}")
    wrong = WRONG_ANSWERS[Negative(task.spec.negative)](gold, texts, doc)
    if not wrong:
        raise SettingError(f"task={task.name}: doc {doc_id}: every answer reads {texts[gold]!r}.")
    return ContrastivePair(
        instances[0].args[0], texts[gold], texts[generator.choice(wrong)], doc_id
    )


def _answers(task: Task, instances: list[Instance], delimiter: str) -> list[str]:
    """Return what may follow the prompt: the requested answers, or the sides of a generation."""
    doc = instances[0].doc
    if task.generates:
        sides = task.identify.doc_to_choice(doc, task.spec.doc_to_choice)
        return [side and f"{delimiter}{side}" for side in sides]
    count = len(task.identify.doc_to_choice(doc))  # acc_mutual_info adds requests behind these
    return [instance.args[1] for instance in instances[:count]]


def _any_other(gold: int, texts: list[str], _doc: Row) -> list[int]:
    return [index for index, text in enumerate(texts) if text != texts[gold]]


def _untrue(_gold: int, texts: list[str], doc: Row) -> list[int]:
    return list(range(doc[TRUE_ANSWERS], len(texts)))


def _opposite(gold: int, texts: list[str], _doc: Row) -> list[int]:
    """Mirror an ordered scale; its middle takes either neighbour (SST-5: positive or negative)."""
    mirrored = len(texts) - 1 - gold
    return [mirrored] if mirrored != gold else [gold - 1, gold + 1]


# Rule → the indices that the wrong side may be drawn from.
WRONG_ANSWERS = {
    Negative.random: _any_other,
    Negative.opposite: _opposite,
    Negative.untrue: _untrue,
}
