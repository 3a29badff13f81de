"""Which runs the paper's numbers may stand beside: those that did as the paper did."""

import json

import pytest
import yaml

from sadi_bench.composing import composed as settings
from sadi_bench.config import choices
from sadi_bench.errors import SettingError
from sadi_bench.experiment import plain
from sadi_bench.results.paper import paper_tables
from sadi_bench.results.paper.matching import paper_names
from sadi_bench.results.paper.table_runs import result_at

NOTHING = {"task": None, "method": None, "unsteered": None}
NO_NUMBER = {"method": None, "unsteered": None}
CHOSEN_BY = {"triviaqa": "exact_match", "toxigen": "toxicity", "truthfulqa": "mc1"}
NOT_THE_PAPERS = {"harness", "pairs", "movie_reviews", "movie_reviews_capital", "truthfulqa_2025"}
TASKS = sorted({*choices("task")} - NOT_THE_PAPERS)
SITES = ("head", "neuron", "hidden")
METHODS = {f"{kind}-{site}" for kind in ("sadi", "random", "fixed") for site in SITES}
METHODS |= {"none", "iti", "caa"}


def names_of(*overrides, task="copa"):
    metric = CHOSEN_BY.get(task, "paper_match")
    overrides = [f"task={task}", "model=llama2-7b", f"select_by={metric}", *overrides]
    return paper_names(plain(settings(*overrides)))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_as_configured_is_the_papers(name):
    assert names_of(task=name) == {"task": name, "method": "sadi-head", "unsteered": "none"}


def test_every_task_of_the_papers_tables_has_a_config_that_is_matched():
    tasks = {task for task in paper_tables()["task"] if "average" not in task}
    assert {task.partition("_")[0] if "mmlu" in task else task for task in tasks} == set(TASKS)


@pytest.mark.parametrize("name", sorted(NOT_THE_PAPERS - {"harness"}))
def test_a_task_of_ours_has_no_number(name):
    assert names_of(task=name) == NOTHING


def test_a_task_of_lm_eval_has_no_number_whatever_it_is_called():
    assert names_of("task.name=copa", task="harness") == NOTHING


@pytest.mark.parametrize(
    "departure",
    [
        "model.chat_template=true",
        "model.tokenizer=gpt2",
        "model.revision=v2",
        "model.pretrained=someone/Llama-2-7b-chat-hf",
        "model.pretrained=/models/another",
        "task.doc_to_text='{{premise}}'",
        "task.doc_to_choice=[a,b]",
        "task.doc_to_target='0'",
        "task.target_delimiter=''",
        "task.trailing_newline=answer",
        "task.negative=opposite",
        "task.fewshot=5",
        "task.output_type=generate_until",
        "task.process_results=triviaqa",
        "+task.generation_kwargs.max_gen_toks=9",
    ],
)
def test_another_prompt_answer_or_model_has_no_number(departure):
    assert names_of(departure) == NOTHING


@pytest.mark.parametrize("metric", ["acc", "exact_match", "auc"])
def test_a_cell_that_another_metric_chose_has_no_number(metric):
    assert names_of(f"select_by={metric}") == {"task": "copa", **NO_NUMBER}


@pytest.mark.parametrize(
    "same",
    [
        "model.dtype=bfloat16",
        "model.device=cpu",
        "task.n_pairs=9",
        "task.n_select=9",
        "task.n_test=9",
        "seed=3",
        "method.seed=3",
        "task.data_dir=/data",
        "runs_dir=/runs",
        "protocol=paper",
        "method.top_k=[2,4]",
        "method.strength=35",
        "method={strength: null, delta: [4, 34]}",
        "method.steps=prefill",
        "model.pretrained=/models/Llama-2-7b-chat-hf",
    ],
)
def test_sizes_seeds_places_dtype_and_a_part_of_the_grid_are_no_departure(same):
    assert names_of(same)["method"] == "sadi-head"


@pytest.mark.parametrize("name", choices("method"))
def test_a_method_as_configured_is_the_papers_or_unknown_to_it(name):
    assert names_of(f"method={name}")["method"] == (name if name in METHODS else None)


@pytest.mark.parametrize(
    ("method", "departure"),
    [
        ("sadi-head", "patch=inflight"),
        ("sadi-head", "score=abs"),
        ("sadi-head", "reach=from_last_prompt"),
        ("sadi-head", "steps=every_step"),
        ("sadi-hidden", "hidden_site=residual"),
        ("fixed-head", "elements=random"),
        ("sadi-head", "top_k=3"),
        ("sadi-head", "strength=[5,6]"),
        ("sadi-neuron", "strength=5"),
        ("caa", "reach=last_prompt"),
        ("iti", "reach=last_prompt"),
        ("iti", "direction=probe"),
        ("iti", "val_ratio=0.5"),
    ],
)
def test_a_switch_that_departs_leaves_the_unsteered_model_alone_comparable(method, departure):
    names = names_of(f"method={method}", f"method.{departure}")
    assert names == {"task": "copa", "method": None, "unsteered": "none"}


def test_a_fine_tuned_model_stands_in_the_papers_fine_tuned_rows():
    tuned = names_of("finetune=sft", "finetune.schedule=cosine")
    assert tuned == {"task": "copa", "method": "sft+sadi-head", "unsteered": "sft"}
    assert names_of("finetune=sft", "method=none")["method"] == "sft"


@pytest.mark.parametrize(
    "departure", ["learning_rate=1e-5", "batch_size=8", "epochs=4", "kind=lora"]
)
def test_other_training_than_the_stated_has_no_number(departure):
    assert names_of("finetune=sft", f"finetune.{departure}") == {"task": "copa", **NO_NUMBER}


def test_demonstrations_are_the_papers_where_it_has_such_a_row():
    assert names_of("task.fewshot=5", task="sst5")["task"] == "sst5"
    assert names_of("task.fewshot=0", task="toxigen") == NOTHING
    assert names_of("task.pairs_from=english", task="xcopa_it")["task"] == "xcopa_it"


def test_a_model_that_the_paper_lacks_stands_in_its_rows_unless_prompts_differ():
    assert names_of("model=smollm2-135m")["method"] == "sadi-head"
    assert names_of("model=smollm2-135m", "model.chat_template=true") == NOTHING


@pytest.mark.parametrize("group", ["task", "model"])
def test_a_config_of_an_older_version_that_lacks_a_setting_has_no_number(group):
    config = plain(settings("task=copa", "model=llama2-7b", "select_by=paper_match"))
    lacking = {"task": "trailing_newline", "model": "chat_template"}
    del config[group][lacking[group]]
    assert paper_names(config) == NOTHING


def test_the_names_follow_from_the_config_whatever_the_result_says(tmp_path):
    config = plain(settings("task=copa", "model=llama2-7b", "select_by=acc"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    said = {"paper": {"task": "nli", "method": "iti", "unsteered": "none"}, "model": "llama2-7b"}
    (tmp_path / "result.json").write_text(json.dumps({"sadi_bench": said}))
    found = result_at(tmp_path)
    assert found["paper"] == {"task": "copa", **NO_NUMBER}
    assert (found["model"], found["config"]) == ("llama2-7b", config)


@pytest.mark.parametrize("content", [None, "task: [", "- a list\n"])
def test_a_finished_run_without_a_readable_config_is_named(tmp_path, content):
    (tmp_path / "result.json").write_text(json.dumps({"sadi_bench": {}}))
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(SettingError, match=r"config\.yaml: (cannot be read|not a config)"):
        result_at(tmp_path)
