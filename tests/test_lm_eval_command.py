"""lm-eval's own command with `--model sadi`: any task, any run's cell, as `hf` would answer."""

import io
import json
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import yaml
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import LlamaConfig, LlamaForCausalLM

from cases import merging_tokenizer
from sadi_bench.errors import SettingError
from sadi_bench.lm_eval_command import main
from sadi_bench.lm_eval_model import SadiLM
from sadi_bench.lm_eval_requests import OneCellLM
from sadi_bench.models import finetune
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.loading import load_language_model
from sadi_bench.models.spec import ModelSpec
from sadi_bench.models.tiny_random import tiny_random
from sadi_bench.scoring.choices import ChoiceRequest, score_choices
from sadi_bench.stages import fit_pairs
from sadi_bench.steering.contrast import encode_pairs
from sadi_bench.steering.intervention import UNSTEERED_MODEL, Intervention
from sadi_bench.steering.methods import method_of
from sadi_bench.tasks.pairs import pairs_from_texts
from steering.test_artefact import METHODS
from terminal import command, small_run, write_rows

QUESTIONS = ("is it so", "why do birds sing at dawn", "a", "which of the two is longer, or neither")
CHOICES = [" yes", " no", " not at all"]
BASE = {"dataset_path": "json", "test_split": "test", "doc_to_text": "Q: {{q}}\nA:"}
MEAN = {"aggregation": "mean", "higher_is_better": True}
TASKS = {
    "mine_choice": {
        "output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "gold",
        "fewshot_split": "test", "num_fewshot": 1,
        "metric_list": [{"metric": "acc", **MEAN}, {"metric": "acc_norm", **MEAN}],
    },
    "mine_text": {
        "output_type": "generate_until", "doc_to_target": "{{choices[gold]}}",
        "generation_kwargs": {"until": ["e"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match", **MEAN}],
    },
    "mine_rolling": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{q}}",
        "metric_list": [{"metric": "word_perplexity"}],
    },
}  # fmt: skip
CHAT = (
    "{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
STRONG = ("method.top_k=[1,3]", "method.strength=[9,-20]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Make tasks in lm-eval's YAML, a model's folder, a run, and its steering beside no run."""
    folder = tmp_path_factory.mktemp("lm-eval")
    rows = [{"q": q, "choices": CHOICES, "gold": i % 3} for i, q in enumerate(QUESTIONS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tasks").mkdir()
    files = {"dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}}
    for name, fields in TASKS.items():
        (folder / "tasks" / f"{name}.yaml").write_text(
            yaml.safe_dump({"task": name, **BASE, **files, **fields})
        )
    group = {"group": "mine", "task": ["mine_choice"], "aggregate_metric_list": [{"metric": "acc"}]}
    (folder / "tasks" / "group.yaml").write_text(yaml.safe_dump(group))
    network, tokenizer = tiny_random(0)
    tokenizer.chat_template = CHAT
    network.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    write_rows(folder / "boolq")
    return folder


@pytest.fixture(scope="module")
def run(folder) -> Path:
    finished = small_run(folder, *STRONG)
    assert finished.code == 0, finished.err
    return finished.path


@pytest.fixture(autouse=True)
def _apart(folder, monkeypatch):
    """Work offline in the folder; leave out lm-eval's 12,000 YAML files and its `pip list`."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _results: None)
    monkeypatch.setattr("lm_eval.utils._LOGGING_CONFIGURED", True)  # else it keeps our stderr
    own_tasks = partial(TaskManager, include_defaults=False)
    monkeypatch.setattr("lm_eval.tasks.TaskManager", own_tasks)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("TQDM_DISABLE", "1")


def typed(model: str, model_args: str, tasks: str, *more: str) -> tuple[str, dict]:
    """Run the command; return what it printed, and its result files as one."""
    output = Path("out", str(len(list(Path("out").glob("*")))))
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        main(["run", "--model", model, "--model_args", model_args, "--tasks", tasks,
              "--include_path", "tasks", "-s", "--output_path", str(output), *more])  # fmt: skip
    (results,) = output.glob("*/results*.json")
    samples = {}
    for file in output.glob("*/samples*.jsonl"):
        for sample in map(json.loads, file.read_text().splitlines()):
            key = file.name.split("_20")[0], sample["doc_id"]
            samples[key] = (sample["arguments"], sample["resps"])
    return out.getvalue(), {**json.loads(results.read_text()), "samples": samples}


def refusal(*arguments: str) -> str:
    with pytest.raises(SettingError) as caught, redirect_stderr(io.StringIO()):
        main(["run", "--include_path", "tasks", *arguments])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def asked(kind: str, pairs: Iterable[tuple]) -> list[Instance]:
    return [Instance(kind, {}, pair, i, metadata=("mine", i, 1)) for i, pair in enumerate(pairs)]


def assert_same_answers(ours: list, theirs: list) -> None:
    assert len(ours) == len(theirs)
    for (logprob, greedy), expected in zip(ours, theirs, strict=True):
        assert logprob == pytest.approx(expected[0], abs=1e-4)
        assert greedy == expected[1]


def test_the_unsteered_cell_says_what_lm_evals_hf_says_and_the_held_out_cell_does_not(run, folder):
    tasks = "mine,mine_text"
    printed, zero = typed("sadi", f"run={run},cell=0", tasks, "--batch_size", "auto")
    _, theirs = typed("hf", f"pretrained={folder / 'model'},dtype=float32", tasks)
    _, steered = typed("sadi", f"run={run.name},runs_dir={run.parent}", tasks, "--batch_size", "2")
    assert zero["samples"].keys() == theirs["samples"].keys()
    assert len(zero["samples"]) == 2 * len(QUESTIONS)
    moved, other_texts = [], 0
    for key, (arguments, expected) in theirs["samples"].items():
        found, after = zero["samples"][key], steered["samples"][key]
        assert found[0] == after[0] == arguments
        for (ours,), (others,), (cell,) in zip(found[1], expected, after[1], strict=True):
            if isinstance(others, str):
                assert ours == others
                other_texts += cell != others
                continue
            assert float(ours[0]) == pytest.approx(float(others[0]), abs=1e-4)
            assert ours[1] == others[1]
            moved.append(abs(float(cell[0]) - float(others[0])))
    assert zero["results"] == {**theirs["results"]}
    assert min(moved) > 1e-3
    assert other_texts > 0
    assert "|mine " in printed and " - mine_choice" in printed and "|mine_text" in printed


def test_the_results_say_steered_and_name_run_and_cell(run, folder):
    given = f"run={run},pretrained={folder / 'model'}"
    _, result = typed("sadi", given, "mine_text", "--limit", "1")
    config, ours = result["config"], result["config"]["sadi_bench"]
    report = json.loads((run / "result.json").read_text())["sadi_bench"]["protocols"]
    assert config["model"] == "sadi"
    assert config["model_args"]["run"] == str(run)
    assert (ours["steered"], ours["chosen_as"], ours["run"]) == (True, "heldout", str(run))
    assert ours["cell"] == report["heldout"]["cell"] > 0
    assert ours["params"] == SadiLM(run=str(run)).params
    assert ours["method"]["name"] == "sadi-head"
    assert ours["learnt_on"] == "boolq"
    assert result["model_name"] == f"{run.name}-steered-heldout"
    assert SadiLM(run=str(run), cell="oracle").number == report["oracle"]["cell"]
    unsteered = SadiLM(run=str(run), cell=0)
    assert unsteered.get_model_info()["sadi_bench"]["steered"] is False
    assert unsteered.intervention is UNSTEERED_MODEL


@pytest.mark.parametrize("cell", ["heldout", 4])
def test_a_cell_says_what_the_run_wrote_down_of_the_same_prompts(run, cell):
    lm = SadiLM(run=str(run), cell=cell)
    grid = pd.read_parquet(run / "grid.parquet").set_index(["split", "doc_id", "cell"])
    docs = [json.loads(line) for line in (run / "docs.jsonl").read_text().splitlines()]
    text = partial(lm.tokenizer.decode, skip_special_tokens=False)
    for doc in docs:
        pairs = [(text(doc["prompt_tokens"]), text(choice)) for choice in doc["choice_tokens"]]
        found = [logprob for logprob, _ in lm.loglikelihood(asked("loglikelihood", pairs))]
        expected = grid.loc[doc["split"], doc["doc_id"], lm.number]["choice_logprobs"]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(docs) == 12


def saved(name: str, to: Path) -> tuple[LanguageModel, Path]:
    """Fit a method on four pairs of yes and no, and save it beside no run."""
    lm = load_language_model(ModelSpec(pretrained="tiny-random", dtype="float32", device="cpu"))
    pairs = [(f"Q: {question}\nA:", "yes", "no") for question in QUESTIONS]
    settings = {"kind": name, "name": name, **METHODS[name]}
    tokens = encode_pairs(lm, pairs_from_texts(pairs))[0]
    steering = fit_pairs(method_of(settings), settings, lm, tokens)
    file = to / f"{name}.safetensors"
    steering.save(file)
    return lm, file


@pytest.mark.parametrize("name", METHODS)
def test_every_methods_file_answers(name, tmp_path):
    lm, file = saved(name, tmp_path)
    cell = 0 if name == "none" else 1
    ours = SadiLM(run=str(file), cell=cell)
    prompts = [f"Q: {question}\nA:" for question in QUESTIONS]
    pairs = [(prompt, answer) for prompt in prompts for answer in (" yes", " no")]
    found = np.array([p for p, _ in ours.loglikelihood(asked("loglikelihood", pairs))])
    answers = tuple(tuple(lm.encode(answer)) for answer in (" yes", " no"))
    requests = [ChoiceRequest(tuple(lm.encode(prompt)), answers) for prompt in prompts]
    scores = score_choices(lm, requests, Intervention.load(file))
    alone = np.concatenate([score.logprobs[:, cell] for score in scores])
    plain = np.concatenate([score.logprobs[:, 0] for score in scores])
    np.testing.assert_allclose(found, alone, atol=1e-4)
    assert (name == "none") == np.allclose(found, plain, atol=1e-4)
    texts = asked("generate_until", [(prompt, {"max_gen_toks": 3}) for prompt in prompts])
    if name == "calibrate":
        with pytest.raises(SettingError, match="a constant an answer changes no text"):
            ours.generate_until(texts)
    else:
        assert all(isinstance(text, str) for text in ours.generate_until(texts))


@pytest.mark.parametrize("bos", [False, True])
def test_texts_without_a_prompt_and_merged_tokens_are_scored_as_by_hf(bos):
    lm, theirs = _both(merging_tokenizer(bos))
    pairs = [("", "the the"), ("", "<s>the"), ("Answer:", " yes"), ("Answer: ", "yes"),
             ("Answer:\n\n", " B"), ("the the", "atre of"), ("<s>Answer:", " no"), ("é", "世界"),
             ("Answer:", " yes"), ("Answer:", " yes and no")]  # fmt: skip
    requests = asked("loglikelihood", pairs)
    ours = OneCellLM(lm, UNSTEERED_MODEL, 0).loglikelihood(requests)
    assert_same_answers(ours, theirs.loglikelihood(requests, disable_tqdm=True))


def _both(tokenizer, context: int = 64) -> tuple[LanguageModel, HFLM]:
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16,
                         num_hidden_layers=2, num_attention_heads=2, initializer_range=0.4,
                         max_position_embeddings=context,
                         eos_token_id=tokenizer.eos_token_id, bos_token_id=None)  # fmt: skip
    network = LlamaForCausalLM(config).eval()
    theirs = HFLM(pretrained=network, tokenizer=tokenizer, batch_size=2)
    return LanguageModel("both", network, tokenizer), theirs


def test_prompts_beyond_the_context_lose_their_beginning_as_in_hf(caplog):
    lm, theirs = _both(merging_tokenizer(bos=True), context=40)
    prompts = ["".join(chr(97 + (i * 7 + n) % 26) for i in range(n)) for n in (9, 37, 38, 39, 70)]
    answers = [" a", " bcd", "x" * 40]
    requests = asked("loglikelihood", [(p, a) for p in prompts for a in answers])
    ours = OneCellLM(lm, UNSTEERED_MODEL, 0)
    assert_same_answers(
        ours.loglikelihood(requests), theirs.loglikelihood(requests, disable_tqdm=True)
    )
    kwargs = {"until": ["q", "th"], "max_gen_toks": 20}
    texts = asked("generate_until", [(p, kwargs) for p in prompts])
    assert ours.generate_until(texts) == theirs.generate_until(texts, disable_tqdm=True)
    said = [record.message for record in caplog.records if "lost their beginning" in record.message]
    assert [line.split(" prompts")[0] for line in said] == ["11 of 15", "4 of 5"]
    assert ours.counts["cut"] == 15
    too_long = asked("loglikelihood", [("a", "x" * 41)])
    with pytest.raises(SettingError, match="an answer has 41 tokens, the context 40"):
        ours.loglikelihood(too_long)


def test_the_text_is_hfs_by_every_name_of_its_length_and_without_one():
    lm, theirs = _both(merging_tokenizer(), context=300)
    ours = OneCellLM(lm, UNSTEERED_MODEL, 0)
    short = {"max_gen_toks": 9}
    for kwargs in (
        {}, {"until": "a", **short}, {"until": [], **short}, {"max_new_tokens": 3},
        {"max_tokens": 4}, {"do_sample": False, "temperature": 0.7, "top_p": 0.9, **short},
        {"until": ["\n", "</s>"], "temperature": 0.0, **short},
    ):  # fmt: skip
        texts = asked("generate_until", [("the cat", dict(kwargs)), ("theatre:", dict(kwargs))])
        assert ours.generate_until(texts) == theirs.generate_until(texts, disable_tqdm=True)


def test_a_penalty_that_hf_takes_from_the_models_folder_is_named(caplog):
    lm, _ = _both(merging_tokenizer())
    ours, texts = OneCellLM(lm, UNSTEERED_MODEL, 0), asked("generate_until", [("a", {})])
    with pytest.raises(SettingError, match=r"max_gen_toks=256: the context of both has 64 tokens"):
        ours.generate_until(texts)
    assert "repetition_penalty" not in caplog.text
    lm.network.generation_config.repetition_penalty = 1.3
    ours.generate_until(asked("generate_until", [("a", {"max_gen_toks": 1})]))
    assert "both: its generation_config has repetition_penalty=1.3, which hf" in caplog.text


def test_a_chat_template_wraps_prompts_as_in_hf_and_the_run_is_compared_with_it(run, folder):
    tasks, options = "mine_choice,mine_text", ("--apply_chat_template", "--system_instruction", "B")
    model = f"pretrained={folder / 'model'}"
    _, ours = typed("sadi", f"run={run},cell=0,{model}", tasks, *options)
    _, theirs = typed("hf", f"{model},dtype=float32", tasks, *options)
    assert ours["chat_template"] == theirs["chat_template"] == CHAT
    assert ours["results"] == theirs["results"]
    for key, (arguments, _) in theirs["samples"].items():
        assert arguments == ours["samples"][key][0]
    assert "[system] B" in str(arguments)
    _, steered = typed("sadi", f"run={run},{model}", "mine_text", "--apply_chat_template")
    (note,) = steered["config"]["sadi_bench"]["notes"]
    assert note.startswith("steering learnt from prompts without a chat template")


def test_what_cannot_be_asked_is_one_line(run, folder, tmp_path):
    model = ("--model", "sadi", "--model_args")
    assert "no last prompt token to steer at" in refusal(
        *model, f"run={run},cell=0", "--tasks", "mine_rolling"
    )
    text = (*model, f"run={run}", "--tasks", "mine_text", "--gen_kwargs")
    assert "asks for sampling" in refusal(*text, "do_sample=True,temperature=0.7")
    assert "asks for sampling" in refusal(*text, "temperature=0.7")
    assert "repetition_penalty=1.2: not heeded" in refusal(*text, "repetition_penalty=1.2")
    assert "max_gen_toks=4096: the context" in refusal(*text, "max_gen_toks=4096")
    for given, complaint in {
        "cell=0": "model_args: names no run",
        "run=nowhere": "run=nowhere: no such folder or file, and no run of this name",
        f"run={folder / 'boolq'}": "steering.safetensors: no such file",
        f"run={run},cell=99": "cell=99: the grid has 5 cells",
        f"run={run},cell=best": "cell=best: no cell was chosen under this name (known: heldout",
        f"run={run},cel=1": "model_args.cel: no such setting. Did you mean cell or model?",
        f"run={run},dtype=int4": "model.dtype=int4: choose auto",
        f"run={run},model=tiny": "model=tiny: unknown. Did you mean tiny-random?",
    }.items():
        assert complaint in refusal(*model, given, "--tasks", "mine_text")
    assert "Tasks not found: theirs" in refusal(*model, f"run={run}", "--tasks", "theirs")
    assert "no model for this name" in refusal("--model", "sadist", "--tasks", "mine_text")
    assert "Specify --output_path" in refusal(*model, f"run={run}", "--tasks", "mine", "-s")
    other, tokenizer = tiny_random(5)
    other.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    given = (*model, f"run={run},pretrained={tmp_path}", "--tasks", "mine_text")
    assert "steering: it was learnt from tiny-random (digest" in refusal(*given)
    plain = (*model, f"run={run}", "--tasks", "mine_text", "--apply_chat_template")
    assert "tiny-random has no chat template" in refusal(*plain)


def test_the_verb_hands_over_its_arguments_and_a_mistake_is_exit_code_2(run):
    finished = command("lm-eval", "run", "--model", "sadi", "--model_args", f"run={run},cell=best",
                       "--tasks", "mine_text", "--include_path", "tasks")  # fmt: skip
    assert finished.code == 2
    assert len(finished.complaints) == 1
    assert finished.complaints[0].startswith("sadi-bench: cell=best: no cell was chosen")
    assert "Traceback" not in finished.err


def test_an_error_of_the_program_keeps_its_traceback(run, monkeypatch):
    def broken(*_):
        raise ValueError("a mistake of ours")

    monkeypatch.setattr("sadi_bench.lm_eval_model.check_model", broken)
    with pytest.raises(ValueError, match="a mistake of ours") as caught:
        typed("sadi", f"run={run}", "mine_text")
    assert not isinstance(caught.value, SettingError)


def test_a_run_whose_name_reads_as_a_number_is_found(run, tmp_path):
    for name, read in {"012345678901": 12345678901, "1234567890e1": 12345678900.0}.items():
        (tmp_path / name).symlink_to(run)
        assert SadiLM(run=read, runs_dir=str(tmp_path)).place == tmp_path / name


def test_a_file_of_the_run_that_was_exchanged_is_refused(run, tmp_path):
    copy = tmp_path / "run"
    copy.mkdir()
    for file in run.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    _, file = saved("caa", tmp_path)
    (copy / "steering.safetensors").write_bytes(file.read_bytes())
    with pytest.raises(SettingError, match="steering.safetensors: cannot be read: not the file"):
        SadiLM(run=str(copy))


def test_lm_evals_cache_of_answers_is_not_shared_by_cells(run):
    task = ("mine_choice", "--use_cache", "answers/kept", "--limit", "2")
    _, first = typed("sadi", f"run={run}", *task)
    _, again = typed("sadi", f"run={run}", *task)
    assert again["samples"] == first["samples"]
    with pytest.raises(SettingError, match="--use_cache: .*another model or cell"):
        typed("sadi", f"run={run},cell=0", *task)


def test_an_overflow_is_counted_and_said(tmp_path, caplog):
    lm, _ = saved("none", tmp_path)
    settings = {"kind": "caa", "name": "caa", "layer": [1], "multiplier": [1e38]}
    pairs = encode_pairs(lm, pairs_from_texts([("Q: so\nA:", "yes", "no")]))[0]
    steering = fit_pairs(method_of(settings), settings, lm, pairs)
    steered = OneCellLM(lm, steering, 1)
    found = steered.loglikelihood(asked("loglikelihood", [("Q:", " yes"), ("Q:", " no")]))
    assert [logprob for logprob, _ in found] == [-np.inf, -np.inf]
    assert steered.generate_until(asked("generate_until", [("Q:", {"max_gen_toks": 2})])) == [""]
    assert steered.counts["overflowed"] == 3
    assert "2 of 2 requests overflowed" in caplog.text


def test_a_fine_tuned_run_is_asked_with_its_own_weights(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setenv("SADI_BENCH_CACHE", str(tmp_path / "cache"))
    tuned = small_run(folder, *STRONG, "finetune=sft", "finetune.learning_rate=1e-3",
                      "finetune.epochs=1", f"runs_dir={tmp_path / 'runs'}")  # fmt: skip
    ours = SadiLM(run=str(tuned.path))
    assert ours.lm.digest == ours.origin.model["digest"]
    (tmp_path / "cache" / "finetuned").rename(tmp_path / "elsewhere")
    with pytest.raises(SettingError, match="checkpoint .* is no longer in the cache.*force=true"):
        SadiLM(run=str(tuned.path))
