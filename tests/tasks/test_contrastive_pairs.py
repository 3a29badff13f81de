"""A pair is the prompt as lm-eval scores it, with the right and a wrong answer."""

import dataclasses

import pytest

from sadi_bench.tasks.pairs import as_released, contrastive_pairs
from sadi_bench.tasks.task import load_task

OWN_TASKS = ("boolq", "copa", "mmlu", "movie_reviews", "nli", "sst2", "sst5", "storycloze",
             "winogrande", "xcopa_it", "xcopa_zh")  # fmt: skip


def load(spec, seed=0, protocol="heldout"):
    return load_task(spec, protocol=protocol, seed=seed)


@pytest.mark.parametrize("name", OWN_TASKS)
def test_the_positive_is_the_gold_answer_and_the_negative_another(own_task, name):
    task = load(own_task(name))
    pairs = contrastive_pairs(task, seed=0)
    rows = {row["doc_id"]: row for row in task.rows("identify")}
    assert [pair.doc_id for pair in pairs] == list(rows)
    answers = [f" {choice}" for choice in task.spec.doc_to_choice]
    for pair in pairs:
        assert pair.positive == answers[rows[pair.doc_id]["gold_index"]]
        assert pair.negative in answers
        assert pair.negative != pair.positive


def test_pairs_are_rendered_as_requests_are_demonstrations_included(own_task):
    task = load(own_task("winogrande", "task.fewshot=2", "task.n_pairs=8"))
    pairs = contrastive_pairs(task, seed=5)
    task.identify.set_fewshot_seed(5)
    task.identify.build_all_requests()
    requested = [instance.args for instance in task.identify.instances]
    scored = {prompt + answer for prompt, answer in requested}
    assert {pair.prompt + pair.positive for pair in pairs} < scored
    assert {pair.prompt + pair.negative for pair in pairs} < scored
    assert all(pair.prompt.count("Sentence:") == 3 for pair in pairs)


def test_the_same_seed_gives_the_same_pairs_again(own_task):
    task = load(own_task("mmlu", "task.fewshot=1"))
    assert contrastive_pairs(task, seed=0) == contrastive_pairs(task, seed=0)
    negatives = [[p.negative for p in contrastive_pairs(task, seed=s)] for s in (0, 1)]
    assert negatives[0] != negatives[1]


def test_a_documents_negative_does_not_depend_on_the_number_of_pairs(own_task):
    def negatives(n_pairs: int) -> dict[int, str]:
        task = load(own_task("nli", f"task.n_pairs={n_pairs}"))
        return {pair.doc_id: pair.negative for pair in contrastive_pairs(task, seed=0)}

    few, many = negatives(4), negatives(12)
    assert few.items() <= many.items()


def test_documents_of_one_answer_get_all_wrong_answers_in_turn(own_task):
    pairs = contrastive_pairs(load(own_task("mmlu"), protocol="paper"), seed=0)
    wrong = {pair.negative for pair in pairs if pair.positive == " B"}
    assert wrong == {" A", " C", " D"}


def test_sst5_negatives_are_opposite_and_neutral_takes_either_neighbour(own_task):
    pairs = contrastive_pairs(load(own_task("sst5", "task.n_pairs=19")), seed=0)
    opposite = {" very negative": {" very positive"}, " negative": {" positive"},
                " positive": {" negative"}, " very positive": {" very negative"},
                " neutral": {" negative", " positive"}}  # fmt: skip
    assert {pair.positive for pair in pairs} == set(opposite)
    assert all(pair.negative in opposite[pair.positive] for pair in pairs)
    neutral = {p.negative for s in range(5) for p in contrastive_pairs(
        load(own_task("sst5", "task.n_pairs=19")), seed=s) if p.positive == " neutral"}  # fmt: skip
    assert neutral == {" negative", " positive"}


def test_a_chat_template_wraps_the_prompt_and_takes_the_delimiter_away(own_task):
    def template(history, add_generation_prompt):
        assert add_generation_prompt
        return "".join(f"<{turn['role']}>{turn['content']}" for turn in history) + "<assistant>"

    spec = own_task("sst2", "task.n_pairs=4")
    plain = contrastive_pairs(load(spec), seed=0)
    chat = contrastive_pairs(load(spec), seed=0, chat_template=template)
    for bare, wrapped in zip(plain, chat, strict=True):
        assert wrapped.prompt == f"<user>{bare.prompt}<assistant>"
        assert wrapped.positive == bare.positive.strip()


def test_as_released_a_prompt_has_no_line_end_and_an_answer_one_space(own_task):
    pairs = contrastive_pairs(load(own_task("copa", "task.n_pairs=4"), protocol="released"), seed=0)
    released = as_released(pairs)
    assert {pair.prompt[-8:] for pair in pairs} == {"Answer:\n"}
    assert [pair.prompt for pair in released] == [pair.prompt.strip() for pair in pairs]
    chat = as_released([dataclasses.replace(pairs[0], positive="A", negative="")])
    assert (chat[0].positive, chat[0].negative) == (" A", "")  # a blank side stays blank


def test_the_released_protocol_takes_the_papers_rows(own_task):
    sizes = {}
    for protocol in ("paper", "released", "heldout"):
        task = load(own_task("storycloze"), protocol=protocol)
        sizes[protocol] = (len(task.rows("identify")), len(task.rows("test")))
    assert sizes["released"] == sizes["paper"] == (360, 6)
    assert sizes["heldout"] == (240, 6)


def test_another_delimiter_opens_the_answers(own_task):
    spec = dataclasses.replace(own_task("copa"), target_delimiter="")
    assert {pair.positive for pair in contrastive_pairs(load(spec), seed=0)} == {"A", "B"}
