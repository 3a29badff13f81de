"""Any multiple-choice task of lm-eval by its name, here from YAMLs of our own and local rows."""

import json

import pytest

from sadi_bench.choosing_metric import selecting_metric
from sadi_bench.errors import SettingError
from sadi_bench.models.loading import Models
from sadi_bench.settings import RunConfig
from sadi_bench.tasks.pairs import contrastive_pairs
from sadi_bench.tasks.readable import readable_rows
from sadi_bench.tasks.task import Task, load_task
from terminal import command

PLAIN = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {files}}}
output_type: {output_type}
{splits}
doc_to_text: {text}
doc_to_choice: {choices}
doc_to_target: {target}
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
{more}
"""
F1 = "  - metric: f1\n    aggregation: f1\n    higher_is_better: true"
ALL = {"train": "training_split", "validation": "validation_split", "test": "test_split"}


def write(folder, name, splits, **fields):
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "validation", "test")}
    values = {
        "output_type": "multiple_choice",
        "text": '"Q: {{question}}\\nA:"',
        "choices": "'{{options}}'",
        "target": "right",
        "more": "",
        **fields,
    }
    named = "\n".join(f"{ALL[split]}: {split}" for split in splits)
    text = PLAIN.format(name=name, files=json.dumps(files), splits=named, **values)
    (folder / f"{name}.yaml").write_text(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write the YAMLs once: lm-eval reads all its own beside them, which takes seconds."""
    folder = tmp_path_factory.mktemp("lm_eval_tasks")
    for split, count in (("train", 12), ("validation", 9), ("test", 6)):
        rows = [
            {"question": f"{split} {i}?", "options": [f"yes {i}", f"no {i}", f"so {i}"],
             "right": i % 3, "word": f"no {i}"}
            for i in range(count)
        ]  # fmt: skip
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines)
    write(folder, "toy_all", ALL, more="num_fewshot: 4\ndescription: 'Answer. '")
    write(folder, "toy_word", ("train", "test"), target="word")
    write(folder, "toy_validation_and_test", ("validation", "test"))
    write(folder, "toy_validation_only", ("validation",))
    write(folder, "toy_generates", ALL, output_type="generate_until")
    write(folder, "toy_inside", ALL, text="right")
    write(folder, "toy_f1", ALL, choices="[one, two, three]", more=F1)
    write(folder, "toy_no_data", ALL)
    broken = (folder / "toy_no_data.yaml").read_text().replace("train.jsonl", "absent.jsonl")
    (folder / "toy_no_data.yaml").write_text(broken)
    return folder


@pytest.fixture
def load(compose_task, folder):
    def loaded(name, *overrides, **options):
        spec = compose_task(
            "harness", f"task.name={name}", f"task.include_path={folder}", *overrides
        )
        return load_task(spec, **{"protocol": "heldout", "seed": 0, **options})

    return loaded


def questions(task, split) -> set[str]:
    return {question.split()[0] for question in task.rows(split)["question"]}


def test_a_task_of_lm_eval_identifies_on_training_and_tests_on_test_docs(load):
    task = load("toy_all")
    assert questions(task, "identify") == questions(task, "select") == {"train"}
    assert questions(task, "test") == {"test"}
    assert task.chance == pytest.approx(1 / 3)
    assert any("lm-eval's default is 4" in note for note in task.notes)
    task.test.build_all_requests()
    prompt, answer = task.test.instances[1].args
    assert (prompt, answer) == ("Answer. Q: test 0?\nA:", " no 0")


def test_its_documents_are_readable(load):
    first = next(readable_rows(load("toy_all"), "test"))
    assert first["prompt"] == "Answer. Q: test 0?\nA:"
    assert (first["choices"], first["gold"]) == (["yes 0", "no 0", "so 0"], 0)
    assert first["row"] == {"doc_id": 0, "question": "test 0?", "right": 0, "word": "no 0",
                            "options": ["yes 0", "no 0", "so 0"]}  # fmt: skip


def test_the_metrics_of_this_program_join_the_tasks_own(load):
    metrics = [metric["metric"] for metric in load("toy_all").test.config.metric_list]
    assert metrics == ["acc", "acc_norm", "exact_match"]


def test_what_is_not_one_number_a_document_chooses_no_cell(folder, monkeypatch):
    """Said before a model is loaded: after all scoring it would be too late."""
    monkeypatch.setattr(Models, "load", lambda *_: pytest.fail("loaded"))
    finished = command(
        "task=harness", "task.name=toy_f1", f"task.include_path={folder}", "model=tiny-random",
        "task.n_pairs=4", "task.n_select=4", "task.n_test=4", "select_by=f1",
        f"runs_dir={folder / 'runs'}",
    )  # fmt: skip
    assert finished.code == 2
    assert finished.complaints == [
        "sadi-bench: select_by=f1: a cell of task=toy_f1 can be chosen by acc, acc_norm, "
        "exact_match, paper_match, auc, acc_biased; choose one of them, or null for the first."
    ]
    assert not list(folder.glob("runs/*"))


def metric_for(select_by: str | None, task: Task) -> str:
    return selecting_metric(RunConfig(task=task.spec, select_by=select_by), task)


def test_answers_that_differ_by_document_have_one_curve_and_no_constants(load):
    differing, same = load("toy_all"), load("toy_f1")
    assert (differing.answers, same.answers) == (None, ("one", "two", "three"))
    for name in ("acc_norm", "paper_match", "auc_pooled"):
        assert metric_for(name, differing) == name
    for name in ("auc", "acc_biased"):
        assert metric_for(name, same) == name
        with pytest.raises(SettingError, match=f"select_by={name}: .* paper_match, auc_pooled;"):
            metric_for(name, differing)
    unselected = load("toy_f1", protocol="paper")
    with pytest.raises(SettingError, match="select_by=acc_biased: .* paper_match, auc; choose"):
        metric_for("acc_biased", unselected)
    assert metric_for(None, same) == "acc"


def test_a_text_target_becomes_an_index(load):
    task = load("toy_word")
    assert set(task.rows("test")["gold_index"]) == {1}
    assert all(p.positive.startswith(" no") for p in contrastive_pairs(task, seed=0))


def test_validation_docs_are_identified_on_where_there_are_test_docs(load):
    task = load("toy_validation_and_test")
    assert questions(task, "identify") == {"validation"}
    assert questions(task, "test") == {"test"}


def test_a_lone_split_is_parted_and_the_run_says_so(load):
    task = load("toy_validation_only")
    rows = [set(task.rows(split)["question"]) for split in ("identify", "select", "test")]
    assert sum(map(len, rows)) == len(set.union(*rows)) == 9
    assert any("one pool of 9 rows" in note for note in task.notes)


def test_few_shot_demonstrations_of_a_harness_task_come_from_identify(load):
    task = load("toy_all", "task.fewshot=2")
    task.test.build_all_requests()
    prompt = task.test.instances[0].args[0]
    assert prompt.count("Q: train") == 2
    assert prompt.endswith("Q: test 0?\nA:")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toy_generates", "output_type generate_until; only multiple_choice"),
        ("toy_inside", "its answers stand inside the prompt"),
        ("toy_al", "unknown to lm-eval. Did you mean toy_all"),
        ("mmlu", "a group of tasks"),
        ("toy_no_data", "lm-eval could not load it"),
        ("''", r"task\.name: which task"),
    ],
)
def test_what_cannot_be_steered_is_refused_in_one_line(load, name, message):
    with pytest.raises(SettingError, match=message) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_a_missing_include_path_is_refused(compose_task):
    spec = compose_task("harness", "task.name=x", "task.include_path=/no/where")
    with pytest.raises(SettingError, match=r"task\.include_path=/no/where: no such folder"):
        load_task(spec, protocol="heldout", seed=0)
