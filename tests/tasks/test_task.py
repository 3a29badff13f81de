"""A loaded task renders the paper's prompts and is a task that lm-eval can score."""

import dataclasses
import json

import pytest

from sadi_bench.errors import SettingError
from sadi_bench.tasks.pairs import contrastive_pairs
from sadi_bench.tasks.sources import read_rows
from sadi_bench.tasks.spec import TaskSpec
from sadi_bench.tasks.task import load_task

OWN_TASKS = ("boolq", "copa", "mmlu", "movie_reviews", "nli", "sst2", "sst5", "storycloze",
             "winogrande", "xcopa_it", "xcopa_zh")  # fmt: skip
SENTIMENT = "Consider the sentiment expression in this sentence and respond briefly with "

# Task → the first row's prompt and its right answer, written by hand.
EXPECTED = {
    "copa": ("Question:\nPremise 501 & more. Based on the previous passage, choose the most "
             "reasonable effect.\nA:One 501.\nB:Two 501.\n\nAnswer:\n", " B"),
    "xcopa_it": ("Question:\nPremessa test 0. Based on the previous passage, choose the most "
                 "reasonable effect.\nA:Uno 0.\nB:Due 0.\n\nAnswer:\n", " A"),
    "storycloze": ("Story 360, part 1. Story 360, part 2. Story 360, part 3. Story 360, part 4.\n"
                   "Question: What is a possible continuation for the story given the following "
                   'options?\nA: End 360. B: Other "360".\nAnswer:', " A"),
    "nli": ("Answer whether the hypothesis is more likely to be true, false, or unclusive based on "
            "the given premise.\nPremise: Text 0.\nHypothesis: Claim entailment 0.\nAnswer:",
            " True"),
    "mmlu": ("Question: anatomy test 0,\nsecond line?\nWhich of the following answers is correct?\n"
             "A. w0\nB. x0\nC. y0\nD. z0\nState the letter corresponding to the correct answer.\n"
             "Answer:", " A"),
    "sst2": (SENTIMENT + "'positive' or 'negative'.\n\na test sentence 0 .\n\nAnswer:",
             " Negative"),
    "sst5": (SENTIMENT + "'very positive', 'positive', 'neutral', 'negative', and 'very negative'."
             "\n\na test sentence 0 .\n\nAnswer:", " very negative"),
    "winogrande": ("Please fill in the blanks. Write A or B as the answer.\n\nSentence: dev 0 and "
                   "_ left.\nA. Ann0\nB. Bo0\nAnswer:", " A"),
}  # fmt: skip
BOOLQ = ("Is the answer to the question encapsulated in the passage? Please confirm with 'yes' or "
         "'no'.\n\nPassage: Passage dev {}.\n\nQuestion: is dev {} so\n\nAnswer:")  # fmt: skip


def load(spec, **options):
    return load_task(spec, **{"protocol": "heldout", "seed": 0, **options})


def requests(task) -> list:
    task.build_all_requests()
    return task.instances


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", EXPECTED)
def test_prompts_are_the_papers_to_the_letter(own_task, name):
    task = load(own_task(name))
    prompt, answer = EXPECTED[name]
    first = [instance for instance in requests(task.test) if instance.doc_id == 0]
    gold = task.rows("test")[0]["gold_index"]
    assert first[gold].args == (prompt, answer)
    assert {instance.args[0] for instance in first} == {prompt}


def test_boolq_prompts_are_the_papers_to_the_letter(own_task):
    task = load(own_task("boolq"))
    first = next(iter(task.rows("test")))
    number = int(first["question"].split()[2])
    expected = BOOLQ.format(number // 2, number)
    assert requests(task.test)[0].args == (expected, " No")
    assert first["gold_index"] == (number % 3 > 0)


def test_movie_reviews_use_sst2s_prompt_and_three_disjoint_splits(own_task):
    task = load(own_task("movie_reviews"))
    assert [len(task.rows(s)) for s in ("identify", "select", "test")] == [150, 300, 400]
    text = task.rows("test")[0]["text"]
    expected = f"{SENTIMENT}'positive' or 'negative'.\n\n{text}\n\nAnswer:"
    assert requests(task.test)[0].args[0] == expected


@pytest.mark.parametrize("name", OWN_TASKS)
def test_the_splits_of_every_task_are_disjoint_by_prompt(own_task, name):
    task = load(own_task(name))
    splits = [task.identify, task.select, task.test]
    prompts = [{instance.args[0] for instance in requests(split)} for split in splits]
    assert sum(map(len, prompts)) == len(set.union(*prompts))


def test_balanced_copa_twins_stay_in_one_split(own_task):
    task = load(own_task("copa", "task.n_pairs=7"))
    pairs, select = ({id % 1000 for id in task.rows(s)["id"]} for s in ("identify", "select"))
    assert pairs and select and not pairs & select


def test_rows_stand_in_the_order_of_lm_evals_docs(own_task):
    task = load(own_task("copa", "task.n_test=5"))
    rows = task.rows("test")
    assert [doc["doc_id"] for _, doc in task.test.doc_iterator()] == rows["doc_id"]
    source = read_rows(task.spec).test
    for row in rows:
        assert row["premise"] == source[row["doc_id"]][1]["premise"]


def test_a_run_says_when_there_is_no_training_file(own_task):
    task = load(own_task("boolq"))
    assert any("has no train.jsonl" in note for note in task.notes)
    assert any("one pool of 21 rows" in note for note in task.notes)
    few = [row for row in task.rows("identify") if row["question"] == "is it few"]
    few += [row for row in task.rows("select") if row["question"] == "is it few"]
    assert len(few) == 1


def test_boolq_with_its_training_file_tests_on_all_of_dev(compose_task, data_dir):
    folder = data_dir("boolq")
    rows = [
        {"question": f"is train {i} so", "answer": True, "passage": f"Train {i}."} for i in range(9)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load(compose_task("boolq", f"task.data_dir={folder}"))
    assert len(task.rows("test")) == 20
    assert not any("one pool" in note for note in task.notes)


def test_mmlu_tests_on_501_rows_a_subject(own_task):
    assert len(load(own_task("mmlu")).rows("test")) == 2 * 501


def test_the_papers_protocol_has_no_select_split(own_task):
    task = load(own_task("mmlu"), protocol="paper")
    assert task.select is None
    assert task.rows("identify")["doc_id"] == task.rows("test")["doc_id"]
    with pytest.raises(KeyError, match="no select split"):
        task.rows("select")


@pytest.mark.parametrize("protocol", ["heldout", "paper"])
def test_a_demonstration_is_never_the_row_asked_about(own_task, protocol):
    """Few rows, so that demonstrations drawn blindly would often be the row itself."""
    few = ["task.test_rows_per.subject=3", "task.n_pairs=4"]
    task = load(own_task("mmlu", "task.fewshot=3", *few), protocol=protocol)
    for split in (task.identify, task.test):
        for instance in requests(split):
            assert instance.args[0].count("Question:") == 4
            assert instance.args[0].count(instance.doc["question"] + "\n") == 1


def test_the_seed_draws_the_demonstrations_too(own_task):
    def prompts(seed: int) -> list[str]:  # of the same 360 rows, whatever the seed
        task = load(own_task("storycloze", "task.fewshot=2"), protocol="paper", seed=seed)
        return [instance.args[0] for instance in requests(task.test)]

    assert prompts(1) == prompts(1)
    assert prompts(1) != prompts(2)


def test_demonstrations_come_from_the_identify_split_and_from_the_seed(own_task):
    spec = own_task("sst5", "task.fewshot=3", "task.n_pairs=6")
    prompts = [i.args[0] for i in requests(load(spec).test)]
    assert prompts == [i.args[0] for i in requests(load(spec).test)]
    assert prompts != [i.args[0] for i in requests(load(spec, seed=1).test)]
    identify = set(load(spec).rows("identify")["text"])
    for prompt in prompts:
        shown = [
            line for line in prompt.split("\n\n") if "sentence" in line and "briefly" not in line
        ]
        assert len(shown) == 4
        assert set(shown[:3]) <= identify


def test_too_many_demonstrations_are_refused(own_task):
    with pytest.raises(SettingError, match=r"task\.fewshot=6: .* choose 0 to 5"):
        load(own_task("sst5", "task.fewshot=6", "task.n_pairs=6"))


def test_the_chance_level_defaults_to_one_over_the_answers(own_task):
    spec = dataclasses.replace(own_task("sst5"), chance=None)
    assert load(spec).chance == pytest.approx(0.2)


def test_the_fingerprint_moves_with_rows_prompts_labels_and_seed_only(own_task, data_dir):
    spec = own_task("copa", "task.n_pairs=8")
    first = load(spec).fingerprint
    assert load(spec).fingerprint == first
    assert load(spec, seed=1).fingerprint != first
    longer = dataclasses.replace(spec, doc_to_text=spec.doc_to_text + " ")
    assert load(longer).fingerprint != first
    path = data_dir("copa") / "copa-test.xml"
    path.write_text(path.read_text().replace("One 502.", "Once 502."))
    assert load(spec).fingerprint != first


def test_an_empty_answer_is_refused(own_task):
    spec = dataclasses.replace(own_task("copa"), doc_to_choice=["A", " "])
    with pytest.raises(SettingError, match="an empty answer among"):
        load(spec)


def test_a_gold_label_outside_the_choices_names_its_file_and_line(own_task, data_dir):
    spec = own_task("winogrande")
    path = data_dir("winogrande") / "train_m.jsonl"
    path.write_text(path.read_text().replace('"answer": "2"', '"answer": "3"', 1))
    with pytest.raises(SettingError, match=r"train_m\.jsonl line 2: the right answer 2 is none of"):
        load(spec)


def test_a_template_with_an_unknown_column_names_the_columns(own_task):
    spec = dataclasses.replace(own_task("copa"), doc_to_text="{{premisse}}")
    with pytest.raises(SettingError, match="'premisse' is undefined; the columns are choice1"):
        load(spec)


@pytest.mark.parametrize(
    "rule",
    ["{{ ['entailment', 'neutral', 'x'].index(label) }}", "{{ {'entailment': 0}[label] }}"],
)
def test_a_rule_that_fails_on_a_row_names_the_row_its_label_and_the_answers(tmp_path, rule):
    file = tmp_path / "rows.jsonl"
    labels = ["entailment"] * 6 + ["entails"] + ["entailment"] * 6
    rows = [json.dumps({"text": f"t{i}", "label": label}) for i, label in enumerate(labels)]
    file.write_text("\n".join(rows))
    spec = TaskSpec(
        name="own", data_dir=str(file), doc_to_text="{{text}}", doc_to_choice=["a", "b", "c"],
        doc_to_target=rule,
    )  # fmt: skip
    with pytest.raises(
        SettingError, match=r"rows\.jsonl line 7: task\.doc_to_target fails"
    ) as caught:
        load(spec)
    assert "label='entails'; the answers are ['a', 'b', 'c']" in str(caught.value)


def test_an_unknown_protocol_names_the_nearest(own_task):
    with pytest.raises(SettingError, match="protocol=held-out: unknown. Did you mean heldout"):
        load(own_task("copa"), protocol="held-out")


def test_a_skewed_test_split_says_what_the_frequent_answer_gets(own_task):
    notes = load(own_task("boolq")).notes
    assert any(note.startswith("always answering Yes is right on") for note in notes)
    assert not any("always answering" in note for note in load(own_task("copa")).notes)


def test_lm_eval_can_write_the_tasks_config_down(own_task):
    assert load(own_task("copa")).test.config.to_dict()["doc_to_choice"] == ["A", "B"]


def test_loading_and_building_print_nothing_off_a_terminal(own_task, capfd):
    contrastive_pairs(load(own_task("nli")), seed=0)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
