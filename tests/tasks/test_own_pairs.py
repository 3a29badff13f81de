"""task=pairs measures on pairs of one's own, held out like any other task's rows."""

import json
from collections import Counter

import pytest

from sadi_bench.errors import SettingError
from sadi_bench.tasks.pairs import ContrastivePair, contrastive_pairs, pairs_from_texts
from sadi_bench.tasks.sources import read_rows
from sadi_bench.tasks.task import load_task
from terminal import command

ROWS = [
    {"prompt": f"{i} + {i} =", "positive": str(2 * i), "negative": str(2 * i + 1), "by": "hand"}
    for i in range(60)
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def task(compose_task, file):
    return load_task(compose_task("pairs", f"task.data_dir={file}"), protocol="heldout", seed=0)


def test_a_file_of_pairs_becomes_three_disjoint_splits_of_questions(task):
    prompts = [set(task.rows(split)["prompt"]) for split in ("identify", "select", "test")]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 60
    assert (task.chance, task.answers) == (0.5, None)


def test_the_right_answer_is_the_positive_and_follows_the_prompt_behind_a_space(task):
    task.test.build_all_requests()
    by_prompt = {row["prompt"]: row["positive"] for row in ROWS}
    for first, second in zip(task.test.instances[::2], task.test.instances[1::2], strict=True):
        gold = (first, second)[first.doc["gold_index"]]
        assert gold.args == (first.doc["prompt"], f" {by_prompt[first.doc['prompt']]}")


def test_steering_learns_from_the_positive_against_the_negative(task):
    by_prompt = {row["prompt"]: (f" {row['positive']}", f" {row['negative']}") for row in ROWS}
    pairs = contrastive_pairs(task, seed=0)
    assert len(pairs) == 20
    assert all((pair.positive, pair.negative) == by_prompt[pair.prompt] for pair in pairs)


def test_the_place_of_the_positive_is_drawn_and_depends_on_its_own_row_alone(compose_task, file):
    rows = [row for _, row in read_rows(compose_task("pairs", f"task.data_dir={file}")).test]
    assert 15 < Counter(row["label"] for row in rows)[0] < 45
    assert all(row["choices"][row["label"]] == row["positive"] for row in rows)
    file.write_text("".join(file.read_text().splitlines(keepends=True)[::-1]))
    turned = [row for _, row in read_rows(compose_task("pairs", f"task.data_dir={file}")).test]
    assert turned == rows[::-1]


def test_pairs_of_a_folder_are_identified_and_tested_on_as_its_files_say(compose_task, tmp_path):
    (tmp_path / "train.csv").write_text("prompt,positive,negative\nOne?,yes,no\nTwo?,no,yes\n")
    (tmp_path / "test.tsv").write_text("prompt\tpositive\tnegative\nThree?\tyes\tno\n")
    files = ("task.files.identify=[train.csv]", "task.files.test=[test.tsv]")
    rows = read_rows(compose_task("pairs", f"task.data_dir={tmp_path}", *files))
    assert [row["prompt"] for _, row in rows.identify + rows.test] == ["One?", "Two?", "Three?"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "", "positive": "a", "negative": "b"}, "a text for each of prompt, positive"),
        ({"prompt": "p", "positive": "a"}, "a text for each of prompt, positive, negative"),
        ({"prompt": "p", "positive": 1, "negative": "b"}, "a text for each of prompt, positive"),
        ({"prompt": "p", "positive": "a", "negative": "a"}, "that differ (both 'a')"),
    ],
)
def test_a_row_that_is_no_pair_is_named(compose_task, file, row, expected):
    with file.open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    with pytest.raises(SettingError, match=r"pairs\.jsonl line 61: expected") as caught:
        read_rows(compose_task("pairs", f"task.data_dir={file}"))
    assert expected in str(caught.value)


def test_without_a_file_the_task_says_what_to_set(compose_task):
    with pytest.raises(SettingError, match=r"task\.data_dir=null: .* a file of rows"):
        read_rows(compose_task("pairs"))


def test_pairs_are_steered_by_the_command(file, tmp_path):
    finished = command(
        "task=pairs", f"task.data_dir={file}", "model=tiny-random", "method.top_k=2",
        "method.strength=5", f"runs_dir={tmp_path / 'runs'}",
    )  # fmt: skip
    assert (finished.code, finished.complaints) == (0, [])
    assert "pairs, tiny-random, sadi-head, 0-shot: n = 30 test documents; chance 50.0 %" in (
        finished.out
    )
    assert set(finished.result["sadi_bench"]["protocols"]) >= {"heldout", "oracle"}


def test_texts_become_the_pairs_that_a_file_of_them_gives(task):
    given = [(row["prompt"], row["positive"], row["negative"]) for row in ROWS]
    of_file = {(p.prompt, p.positive, p.negative) for p in contrastive_pairs(task, seed=0)}
    assert of_file < {(p.prompt, p.positive, p.negative) for p in pairs_from_texts(given)}


def test_a_blank_negative_is_no_text_at_all():
    assert pairs_from_texts([("Say it:", "yes", " ")]) == [
        ContrastivePair("Say it:", " yes", "", 0)
    ]
    assert pairs_from_texts([("p", " a", " b")], delimiter="") == [
        ContrastivePair("p", " a", " b", 0)
    ]


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ([], "pairs: none are given; a method learns from at least one."),
        ([("p", "a", "b"), (" ", "a", "b")], "pairs[1]: the prompt is blank; give it a text."),
        ([("p", "", "b")], "pairs[0]: the positive is blank; give it a text."),
        ([("p", "a", "a")], "pairs[0]: positive and negative are both 'a'."),
    ],
)
def test_texts_that_are_no_pairs_are_refused_in_one_line(texts, complaint):
    with pytest.raises(SettingError) as caught:
        pairs_from_texts(texts)
    assert str(caught.value) == complaint
