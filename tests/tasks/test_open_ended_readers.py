"""Files and hub of the open-ended tasks give the same rows; a broken row says where and why."""

import json
from pathlib import Path

import pytest
from hub_stand_in import hub_folder
from open_ended_files import ANNOTATIONS_HEADER, TOXIGEN_GROUPS

from sadi_bench.errors import SettingError
from sadi_bench.tasks.readers import READERS
from sadi_bench.tasks.readers.lines import BrokenRow
from sadi_bench.tasks.sources import read_rows
from sadi_bench.tasks.task import load_task

HEADER = ",".join(ANNOTATIONS_HEADER) + "\n"
CSV_HEADER = "Question,Best Answer,Correct Answers,Incorrect Answers\n"


def read(reader: str, text: str, path: str, **limits) -> list[dict]:
    return [row for _, row in READERS[reader](text, Path(path), **limits)]


def values(located) -> list[dict]:
    return [row for _, row in located]


def test_triviaqa_takes_the_question_out_of_its_context():
    line = json.dumps({"context": "Question: Who?\nAnswer:", "answer": "Me", "aliases": ["I", ""]})
    expected = {"question": "Who?", "answer": "Me", "aliases": ["I"]}
    assert read("triviaqa", line, "x.jsonl") == [expected]


def test_truthfulqa_puts_the_best_answer_first_and_then_the_other_true_ones():
    text = json.dumps([{"question": "Q?", "mc1_targets": {"B.": 1, "F.": 0},
                        "mc2_targets": {"A.": 1, "B.": 1, "F.": 0}}])  # fmt: skip
    expected = {"question": "Q?", "choices": ["B.", "A.", "F."], "true_answers": 2}
    assert read("truthfulqa", text, "mc_task.json") == [expected]


def test_both_truthfulqa_layouts_give_the_same_rows(own_task):
    old, new = (read_rows(own_task(name)) for name in ("truthfulqa", "truthfulqa_2025"))
    assert values(old.test) == values(new.test)
    assert old.carve and new.carve


def test_a_csv_answer_listed_twice_stands_once_and_as_both_is_false():
    text = CSV_HEADER + "Q?,A,A; Odd; A.,F; Odd; F;\n"
    expected = {"question": "Q?", "choices": ["A.", "F.", "Odd."], "true_answers": 1}
    assert read("truthfulqa", text, "TruthfulQA.csv") == [expected]


def test_a_toxigen_prompt_gets_its_line_breaks_and_its_group():
    text = "- one\\n- two \\\\\\n-\n"
    expected = {"group": "middle_east", "text": "- one\n- two \n-", "continuations": []}
    assert read("toxigen", text, "hate_middle_east_1k_first100.txt") == [expected]


def test_toxigen_pairs_a_kind_and_a_rude_sentence_of_one_group(own_task):
    rows = values(read_rows(own_task("toxigen")).identify)
    assert len(rows) == 36
    sides = {side for row in rows for side in row["continuations"]}
    assert len(sides) == 72
    for row in rows:
        *sentences, end = row["text"].split("\n")
        positive, negative = row["continuations"]
        group = {"mental_disability": "mental_dis"}.get(row["group"], row["group"])
        assert positive.startswith("a kind") and negative.startswith("a rude")
        assert all(text.endswith(f"of {group}") for text in (positive, negative, *sentences))
        assert len(set(sentences)) == 6 and end == "-"
        assert not {sentence.removeprefix("- ") for sentence in sentences} & sides


def test_the_bounds_of_the_ratings_are_settings(own_task):
    rows = read_rows(own_task("toxigen", "task.files.limits.toxic_from=3"))
    assert len(rows.identify) == 36  # no more kind ones than before
    fewer = read_rows(own_task("toxigen", "task.files.limits.sentences=2"))
    assert {row["text"].count("\n") for row in values(fewer.identify)} == {2}


def test_annotations_may_be_plain_texts_and_those_of_two_lines_are_left_out():
    rows = [("b'kind, \\xc3\\xa9'", 1), ("'b\"so\\ntwo\"'", 1), ('"b""it\'s rude"""', 5),
            ("kind", 1.5), ("rude", 4), ('"two\nlines"', 5)]  # fmt: skip
    lines = [f"{text if ',' not in text else f'{chr(34)}{text}{chr(34)}'},women,,{rating},x\n"
             for text, rating in rows]  # fmt: skip
    found = read("toxigen", HEADER + "".join(lines), "annotated_train.csv")
    sides = {side for row in found for side in row["continuations"]}
    assert sides == {"kind, é", "it's rude", "kind", "rude"}


@pytest.mark.parametrize(
    ("reader", "path", "text", "line", "expected"),
    [
        ("triviaqa", "x", '{"context": "Who?", "answer": "a", "aliases": []}', 1, "Question: …"),
        ("triviaqa", "x", '{"context": "Question: Q?\\nAnswer:", "aliases": []}', 1, "aliases"),
        ("truthfulqa", "x.json", "", 1, "a JSON list of questions"),
        ("truthfulqa", "x.json", '[\n{"question": "Q?"}]', 2, "one best answer"),
        ("truthfulqa", "x.json", '[\n{"question":\n', 3, "a JSON list of questions"),
        ("truthfulqa", "x.json", "[1]", 1, "a JSON list of questions"),
        ("truthfulqa", "x.csv", "a,b\n", 1, "a header with Question, Best Answer"),
        ("truthfulqa", "x.csv", CSV_HEADER + "Q?,A,A,\n", 2, "a false answer"),
        ("truthfulqa", "x.csv", CSV_HEADER + "Q?,A,A,A\n", 2, "one best answer"),
        ("toxigen", "hate_women.txt", "- one\\n-\n", 1, "a name like hate_GROUP_1k"),
        ("toxigen", "hate_women_1k.txt", "- one\\n-\n- two\n", 2, 'an open "-"'),
        ("toxigen", "x.csv", "", 1, "a header with text, target_group"),
        ("toxigen", "x.csv", HEADER + "so,women,,much,x\n", 2, "a number for toxicity_human"),
        ("toxigen", "x.csv", HEADER + "so,women,,9,x\n", 2, "from 1 to 5"),
        ("toxigen", "x.csv", HEADER + "b'\\xff',women,,1,x\n", 2, "a Python bytes literal"),
        ("toxigen", "x.csv", HEADER + "so,women,,1,x\n", 1, "sentences of one target_group"),
    ],
)
def test_a_broken_row_names_its_line_and_what_was_expected(reader, path, text, line, expected):
    with pytest.raises(BrokenRow) as caught:
        read(reader, text, path)
    assert caught.value.line == line
    assert expected in caught.value.expected


def test_an_unknown_reader_or_limit_names_the_known_ones(own_task):
    with pytest.raises(SettingError, match=r"task\.files\.reader=trivia: .* mean triviaqa"):
        read_rows(own_task("triviaqa", "task.files.reader=trivia"))
    with pytest.raises(SettingError, match=r"task\.files\.limits\.toxic: .*toxic_from"):
        read_rows(own_task("toxigen", "+task.files.limits.toxic=4"))


def test_triviaqa_of_the_hub_gives_the_rows_of_the_file(compose_task, own_task, tmp_path):
    files = values(read_rows(own_task("triviaqa")).test)
    nested = [
        {"question": row["question"], "question_id": "x",
         "answer": {"value": row["answer"], "aliases": row["aliases"],
                    "normalized_aliases": ["so"]}}
        for row in files
    ]  # fmt: skip
    folder = hub_folder(tmp_path, "rc.nocontext", {"train": nested[:9], "validation": nested[9:]})
    hub = read_rows(compose_task("triviaqa", f"task.hub.path={folder}"))
    assert values(hub.identify) + values(hub.test) == files
    assert not hub.carve


def test_truthfulqa_of_the_hub_gives_the_rows_of_the_file(compose_task, own_task, tmp_path):
    spec = own_task("truthfulqa")
    questions = json.loads((Path(spec.data_dir) / "mc_task.json").read_text())
    nested = [
        {"question": q["question"],
         **{name: {"choices": list(q[name]), "labels": list(q[name].values())}
            for name in ("mc1_targets", "mc2_targets")}}
        for q in questions
    ]  # fmt: skip
    folder = hub_folder(tmp_path, "multiple_choice", {"validation": nested})
    hub = read_rows(compose_task("truthfulqa", f"task.hub.path={folder}"))
    assert values(hub.test) == values(read_rows(spec).test)
    assert hub.carve


def toxic_hubs(tmp_path) -> list[str]:
    """Write prompts of 14 groups, and 60 continuations that are toxic, benign or in between."""
    prompts = {
        f"hate_{group}_1k": [{"text": rf"- {group} {i}\n-"} for i in range(3)]
        for group in TOXIGEN_GROUPS
    }
    scored = [
        {"prompt": {"text": f"So it began {i},", "toxicity": 0.5},
         "continuation": {"text": f" and ended {i}.", "toxicity": (0.97, 0.05, 0.5, None)[i % 4]}}
        for i in range(60)
    ]  # fmt: skip
    return [
        f"task.hub.path={hub_folder(tmp_path, 'prompts', prompts, 'prompts')}",
        f"task.identify_hub.path={hub_folder(tmp_path, 'default', {'train': scored}, 'scored')}",
    ]


def test_toxigen_of_the_hub_joins_two_repositories(compose_task, tmp_path):
    paths = toxic_hubs(tmp_path)
    rows = read_rows(compose_task("toxigen", *paths))
    assert len(rows.test) == 42 and not rows.carve
    assert rows.test[0][1] == {"group": "asian", "text": "- asian 0\n-", "continuations": []}
    assert len(rows.identify) == 15
    for _, row in rows.identify:
        number = int(row["text"].split()[-1].strip(","))
        benign, toxic = (int(side.split()[-1].strip(".")) for side in row["continuations"])
        assert (number % 4, toxic, benign % 4) == (0, number, 1)
    task = load_task(compose_task("toxigen", *paths), protocol="heldout", seed=0)
    assert len(task.rows("test")) == 42
    stricter = compose_task("toxigen", *paths, "task.identify_hub.limits.toxic_above=0.98")
    assert not read_rows(stricter).identify


def test_a_hub_row_of_other_columns_is_one_line(compose_task, tmp_path):
    folder = hub_folder(tmp_path, "rc.nocontext", {s: [{"a": 1}] for s in ("train", "validation")})
    with pytest.raises(SettingError, match=r"validation row 0: expected a question, an answer"):
        read_rows(compose_task("triviaqa", f"task.hub.path={folder}"))


def test_a_task_that_is_not_on_the_hub_says_what_to_set(compose_task):
    with pytest.raises(SettingError, match=r"truthfulqa_2025: it is not on the hub; .*data_dir"):
        read_rows(compose_task("truthfulqa_2025"))
