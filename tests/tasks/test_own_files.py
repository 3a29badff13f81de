"""Rows of one's own, in csv, tsv, jsonl, Parquet or as `datasets` reads them: a YAML will do."""

import csv
import json

import pandas as pd
import pytest

from sadi_bench.errors import SettingError
from sadi_bench.tasks.sources import read_rows
from sadi_bench.tasks.spec import FileSource, TaskSpec
from sadi_bench.tasks.task import load_task

WORDS = {"entailment": 0, "neutral": 1, "contradiction": 2}
ROWS = [
    {"premise": f'He said "{i}".', "hypothesis": f"Claim, {i}", "label": list(WORDS)[i % 3]}
    for i in range(24)
]


def write(path, rows=ROWS):
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".tsv":
        lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def nli(path=None, **fields) -> TaskSpec:
    given = {
        "name": "mine",
        "doc_to_text": "{{premise}} {{hypothesis}}",
        "doc_to_choice": ["Yes", "Maybe", "No"],
        "doc_to_target": "label",
        "label_map": WORDS,
        "data_dir": path and str(path),
        **fields,
    }
    return TaskSpec(**given)


def load(spec, **options):
    return load_task(spec, **{"protocol": "heldout", "seed": 0, **options})


def rows_of(task) -> list[dict]:
    return [row for split in ("identify", "select", "test") for row in task.rows(split)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_one_file_of_any_format_is_split_into_the_same_three_parts(tmp_path, suffix):
    task = load(nli(write(tmp_path / f"rows{suffix}")))
    found = {row["hypothesis"]: (row["label"], row["gold_index"]) for row in rows_of(task)}
    assert len(rows_of(task)) == len(found) == 24
    assert found == {row["hypothesis"]: (row["label"], WORDS[row["label"]]) for row in ROWS}
    assert task.fingerprint == load(nli(write(tmp_path / "again.jsonl"))).fingerprint
    assert any("one pool of 24 rows is split" in note for note in task.notes)


def test_files_of_a_folder_are_read_by_the_suffix_of_each(tmp_path):
    write(tmp_path / "train.csv", ROWS[:16])
    write(tmp_path / "test.parquet", ROWS[16:])
    files = FileSource(identify=["train.csv"], test=["test.parquet"])
    rows = read_rows(nli(tmp_path, files=files))
    assert [row for _, row in rows.identify + rows.test] == ROWS
    assert rows.identify[0][0] == f"{tmp_path}/train.csv line 2"
    assert rows.test[0][0] == f"{tmp_path}/test.parquet row 0"


def test_a_reader_that_is_named_wins_over_the_suffix(tmp_path):
    write(tmp_path / "rows.csv").rename(tmp_path / "rows.txt")
    spec = nli(tmp_path / "rows.txt")
    with pytest.raises(SettingError, match=r"files\.reader=null: .*rows\.txt is none of \.csv"):
        read_rows(spec)
    spec.files.reader = "csv"
    assert [row for _, row in read_rows(spec).test] == ROWS


def test_a_relative_path_starts_from_the_working_directory(tmp_path, monkeypatch):
    write(tmp_path / "rows.csv")
    monkeypatch.chdir(tmp_path)
    assert len(read_rows(nli("rows.csv")).test) == 24


def test_labels_of_digits_in_a_csv_are_indices_unless_they_are_an_answers_text(tmp_path):
    path = write(tmp_path / "r.csv", [{**row, "label": WORDS[row["label"]]} for row in ROWS])
    golds = {row["gold_index"] for row in load(nli(path, label_map={})).rows("test")}
    assert golds <= {0, 1, 2}
    spec = nli(path, label_map={}, doc_to_choice=["2", "1", "0"])
    assert {(row["label"], row["gold_index"]) for row in rows_of(load(spec))} == {
        ("0", 2), ("1", 1), ("2", 0)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", 'x,label\n"open', "a.csv line 2: expected a CSV record"),
        ("a.csv", "x,label\n1\n", "a.csv line 2: expected 2 fields (found 1)"),
        ("a.csv", "x,x\n1,2\n", "a.csv line 1: expected a header that names no column twice (f"),
        ("a.tsv", "x\tlabel\n1\t2\t3\n", "a.tsv line 2: expected 2 fields (found 3)"),
        ("a.jsonl", "[]\n", "a.jsonl line 1: expected one JSON object a line"),
        ("a.parquet", "no", "a.parquet row 0: expected a Parquet file ("),
        ("a.csv", "premise,hypothesis,label\na,,neutral\n", "a.csv line 2: expected a text or va"),
        ("a.csv", "premise,label\na,neutral\n", "'hypothesis' is undefined; the columns are lab"),
    ],
)
def test_a_broken_file_is_one_line_that_names_file_line_and_what_was_expected(
    tmp_path, name, content, complaint
):
    (tmp_path / name).write_text(content)
    with pytest.raises(SettingError) as caught:
        load(nli(tmp_path / name))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_that_no_rule_reads_may_be_blank_or_missing(tmp_path):
    rows = [{**row, **({"note": "x"} if i % 2 else {})} for i, row in enumerate(ROWS)]
    task = load(nli(write(tmp_path / "rows.jsonl", rows)))
    assert {row["note"] for row in rows_of(task)} == {"x", None}


def test_columns_of_several_types_are_one_line(tmp_path):
    rows = [{**row, "note": i if i % 2 else [i]} for i, row in enumerate(ROWS)]
    path = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(SettingError, match=r"several types .* task\.columns") as caught:
        load(nli(path))
    assert "\n" not in str(caught.value)
    assert load(nli(path, columns=["premise", "hypothesis", "label"]))


def test_a_label_map_may_say_the_answers_text_and_leave_rows_out(tmp_path):
    words = {"entailment": "Yes", "neutral": None, "contradiction": "No"}
    task = load(nli(write(tmp_path / "r.csv"), label_map=words))
    assert {(row["label"], row["gold_index"]) for row in rows_of(task)} == {
        ("entailment", 0), ("contradiction", 2)
    }  # fmt: skip
    assert any("8 of 24 rows left out: task.label_map" in note for note in task.notes)


def test_the_label_map_is_part_of_the_fingerprint(tmp_path):
    path = write(tmp_path / "r.csv")
    turned = {"entailment": 2, "neutral": 1, "contradiction": 0}
    assert load(nli(path)).fingerprint != load(nli(path, label_map=turned)).fingerprint


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"label_map": {"entailment": 0, "neutral": 1}},
         "r.csv line 4: task.label_map has no 'contradiction' for label; it has entailment, neut"),
        ({"label_map": {True: 0, False: 1}}, "YAML reads yes and no as true and false: quote them"),
        ({"label_map": {**WORDS, "neutral": 7}}, "r.csv line 3: the right answer 7 is none of the"),
        ({"doc_to_target": "{{label}}"}, "task.doc_to_target={{label}} names no column; the colu"),
    ],
)  # fmt: skip
def test_a_label_that_the_map_lacks_or_sends_nowhere_is_one_line(tmp_path, fields, complaint):
    with pytest.raises(SettingError) as caught:
        load(nli(write(tmp_path / "r.csv"), **fields))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_label_map_is_read_from_the_command_line(compose_task):
    spec = compose_task("pairs", "+task.label_map={neutral:1,2:0,gone:null}")
    assert spec.label_map == {"neutral": 1, 2: 0, "gone": None}


FILES = {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"}


@pytest.fixture
def three(tmp_path, monkeypatch):
    """Three files in the working directory."""
    for name, part in (("train", ROWS[:12]), ("dev", ROWS[12:18]), ("test", ROWS[18:])):
        write(tmp_path / f"{name}.jsonl", part)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lm_eval_words(**fields) -> TaskSpec:
    return nli(**{"dataset_path": "json", "data_files": FILES, **fields})


@pytest.mark.parametrize(
    ("splits", "identify", "test", "carve"),
    [
        ({"training_split": "train", "validation_split": "dev", "test_split": "test"},
         ROWS[:12], ROWS[18:], False),
        ({"validation_split": "dev", "test_split": "test"}, ROWS[12:18], ROWS[18:], False),
        ({"training_split": "train", "validation_split": "dev"}, ROWS[:12], ROWS[12:18], False),
        ({"test_split": "test"}, [], ROWS[18:], True),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("three")
def test_lm_evals_words_for_the_data_mean_what_they_mean_there(splits, identify, test, carve):
    for given in ({}, {"data_files": None, "dataset_kwargs": {"data_files": FILES}}):
        rows = read_rows(lm_eval_words(**splits, **given))
        assert [row for _, row in rows.identify] == identify
        assert [row for _, row in rows.test] == test
        assert rows.carve is carve
    assert rows.test[0][0].endswith(".jsonl row 0")


def test_a_csv_is_read_by_lm_evals_words_too_and_the_task_loads(three):
    write(three / "all.csv")
    spec = lm_eval_words(dataset_path="csv", data_files="all.csv", test_split="train")
    assert len(rows_of(load(spec))) == 24


@pytest.mark.usefixtures("three")
def test_local_files_ask_no_hub(monkeypatch):
    monkeypatch.setattr("sadi_bench.tasks.hub_rows.hub_answers", lambda: pytest.fail("asked"))
    assert read_rows(lm_eval_words(test_split="test")).test


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, "task.test_split: null; name the split to test on"),
        ({"test_split": "tset"}, "the tset split of task.data_files (json) cannot be read: "),
        ({"test_split": "test", "data_files": {"test": "no.jsonl"}}, "no.jsonl"),
        ({"test_split": "broken", "data_files": {"broken": "broken.jsonl"}}, "JSON"),
        ({"test_split": "test", "dataset_path": None}, "task.dataset_path: null, while other"),
        ({"dataset_path": None, "data_files": None}, "task.data_dir=null: mine has no rows"),
    ],
)
def test_wrong_words_for_the_data_are_one_line(three, fields, complaint):
    (three / "broken.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(SettingError) as caught:
        read_rows(lm_eval_words(**fields))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_names_of_files_and_a_place_that_is_not_there_are_one_line(tmp_path):
    with pytest.raises(SettingError, match=r"the task names no file in it; say task\.files\.test"):
        read_rows(nli(tmp_path))
    with pytest.raises(SettingError, match=r"no file or folder .*absent\.csv"):
        read_rows(nli(tmp_path / "absent.csv"))
