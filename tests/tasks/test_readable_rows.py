"""A document as a person reads it: the prompt, the answers, the row's own columns."""

import datetime
import json

import pandas as pd
import pytest

from sadi_bench.tasks.readable import readable_rows
from sadi_bench.tasks.spec import TaskSpec
from sadi_bench.tasks.task import load_task

OURS = {"gold_index", "doc_group", "target"}


def load(spec, **options):
    return load_task(spec, **{"protocol": "heldout", "seed": 0, **options})


def as_json(rows) -> list[dict]:
    """What a file of JSON lines would hold; anything that JSON cannot hold is an error."""
    return [json.loads(json.dumps(row, allow_nan=False)) for row in rows]


def test_copa_reads_as_it_is_asked(own_task):
    first = as_json(readable_rows(load(own_task("copa")), "test"))[0]
    assert first == {
        "prompt": "Question:\nPremise 501 & more. Based on the previous passage, choose the most "
        "reasonable effect.\nA:One 501.\nB:Two 501.\n\nAnswer:\n",
        "choices": ["A", "B"],
        "gold": 1,
        "row": {"doc_id": 0, "id": 501, "premise": "Premise 501 & more.", "choice1": "One 501.",
                "choice2": "Two 501.", "question": "effect", "label": 1},
    }  # fmt: skip


@pytest.mark.parametrize("split", ["identify", "select", "test"])
@pytest.mark.parametrize("name", ["triviaqa", "copa"])
def test_rows_stand_in_the_order_of_their_split(own_task, name, split):
    task = load(own_task(name, "task.n_test=8"))
    rows = as_json(readable_rows(task, split))
    expected = list(task.rows(split))
    assert [row["row"]["doc_id"] for row in rows] == [doc["doc_id"] for doc in expected]
    assert all(not OURS & set(row["row"]) for row in rows)
    assert [row["prompt"] for row in rows] == [task.test.doc_to_text(doc) for doc in expected]


def test_a_written_answer_has_the_sides_of_its_pair(own_task):
    for row in as_json(readable_rows(load(own_task("triviaqa", "task.n_test=8")), "test")):
        assert row["choices"] == [row["row"]["answer"], ""]
        assert row["gold"] == 0


def test_a_prompt_to_continue_has_none(own_task):
    task = load(own_task("toxigen", "task.fewshot=0"))
    rows = as_json(readable_rows(task, "test"))
    assert {(tuple(row["choices"]), row["gold"]) for row in rows} == {((), None)}
    assert all(len(row["choices"]) == 2 for row in readable_rows(task, "identify"))


def test_demonstrations_and_a_chat_template_are_part_of_the_prompt(own_task):
    def template(history, add_generation_prompt):
        assert add_generation_prompt
        return "".join(f"<{turn['role']}>{turn['content']}" for turn in history) + "<assistant>"

    task = load(own_task("winogrande", "task.fewshot=2", "task.n_pairs=8"))
    asked = [row["prompt"] for row in readable_rows(task, "select", chat_template=template)]
    assert all(prompt.count("Sentence:") == 3 and "<assistant>" in prompt for prompt in asked)


def test_what_was_asked_is_shown_rather_than_asked_anew(own_task):
    task = load(own_task("winogrande", "task.fewshot=2", "task.n_pairs=8"))
    task.test.set_fewshot_seed(99)
    task.test.build_all_requests()
    asked = [instance.args[0] for instance in task.test.instances[::2]]
    assert [row["prompt"] for row in readable_rows(task, "test")] == asked
    again = load(own_task("winogrande", "task.fewshot=2", "task.n_pairs=8"))
    assert [row["prompt"] for row in readable_rows(again, "test")] != asked


def test_columns_that_json_cannot_hold_become_texts_or_null(tmp_path):
    when = datetime.date(2020, 1, 2)
    frame = pd.DataFrame(
        {"text": [f"t{i}" for i in range(12)], "label": [0, 1] * 6, "when": [when] * 12,
         "score": [0.5, float("nan")] * 6, "spans": [[{"end": float("inf")}]] * 12}
    )  # fmt: skip
    frame.to_parquet(tmp_path / "rows.parquet")
    spec = TaskSpec(
        name="mine", data_dir=str(tmp_path / "rows.parquet"), doc_to_text="text",
        doc_to_choice=["a", "b"], doc_to_target="label",
    )  # fmt: skip
    for row in as_json(readable_rows(load(spec), "test")):
        own = row["row"]
        assert (own["when"], own["spans"]) == ("2020-01-02", [{"end": None}])
        assert own["score"] == (None if own["label"] else 0.5)


def test_a_split_that_a_protocol_lacks_is_a_mistake_of_the_caller(own_task):
    with pytest.raises(KeyError, match="no select split"):
        next(readable_rows(load(own_task("copa"), protocol="paper"), "select"))
