"""A user's mistake gets one line and exit code 2; nothing that was finished is lost."""

import csv
import io
import json
import logging
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from transformers import AutoConfig, GPTNeoConfig, GPTNeoForCausalLM

from sadi_bench import experiment, stages
from sadi_bench.config import GROUPS, choices
from sadi_bench.errors import SettingError
from sadi_bench.models import loading
from sadi_bench.models.tiny_random import tiny_random
from sadi_bench.results.run_dir import writing_run
from sadi_bench.run_log import log_to
from terminal import SMALL, command, small_run, write_rows

PROGRAM = (sys.executable, "-m", "sadi_bench.cli")
UNKNOWN = [
    ("task=copaa", "task=copaa: unknown. Did you mean copa"),
    ("model=llama2", "model=llama2: unknown. Did you mean llama2-7b"),
    ("method=sadi", "method=sadi: unknown. Did you mean sadi-head"),
    ("experiment=smok", "experiment=smok: unknown. Did you mean smoke?"),
    (
        "protocol=heldut",
        "protocol=heldut: unknown. Did you mean heldout? Known: heldout, paper, released.",
    ),
    ("method.topk=4", "method.topk: no such setting. Did you mean top_k? Known: delta, draws,"),
    ("task.n_pair=3", "task.n_pair: no such setting. Did you mean n_pairs or"),
    ("task.hub.pth=x", "task.hub.pth: no such setting. Did you mean path?"),
    ("model.dtyp=x", "model.dtyp: no such setting. Did you mean dtype? Known:"),
    ("sead=1", "sead: no such setting. Did you mean seed? Known: also, debug, experiment,"),
    ("+task.foo=1", "task.foo: no such setting. Known: chance,"),
    ("+foo=1", "foo: no such setting. Did you mean force? Known: also, debug, finetune,"),
    ("method=none method.top_k=1", "method.top_k: no such setting. Known: kind, name."),
]
WRONG_VALUES = [
    ("task.n_pairs=abc", "task.n_pairs=abc: expected a whole number."),
    ("task.n_pairs=1.5", "task.n_pairs=1.5: expected a whole number."),
    ("task.chance=x", "task.chance=x: expected a number."),
    ("force=maybe", "force=maybe: expected true or false."),
    ("runs_dir=null", "runs_dir=null: expected a value other than null."),
    ("task.negative=foo", "task.negative=foo: expected one of random, opposite, untrue."),
    ("task.columns=3", "task.columns: expected one value or a list, like [1,2]."),
    ("seed=???", "seed=???: give it a value."),
    ("seed=-1", "seed=-1: choose 0 to 4294967295."),
    ("model.seed=-1", "model.seed=-1: choose 0 to 4294967295."),
    (
        "protocol=released model.dtype=bfloat16",
        "model.dtype=bfloat16: protocol=released computes in float32, as the released code does; ",
    ),
    ("token_budget=0", "token_budget=0: choose at least 1, or null for what suits the device."),
    ("method.top_k=[1", "method.top_k=[1: cannot be read (no viable alternative at input '[1'); a"),
    ("task", "task: cannot be read (Error parsing override 'task' missing EQUAL at '<EOF>'); a"),
    (
        "task=null",
        "task, model, method, finetune, judge, experiment: each takes one of its ",
    ),
    ("task=[copa,boolq]", "task: choose one; -m task=A,B makes a run of each."),
    ("finetune=sf", "finetune=sf: unknown. Did you mean sft? Known: lora, none, sft."),
    ("finetune=[sft,lora]", "finetune: choose one; -m finetune=A,B makes a run of each."),
    (
        "finetune.epochs=5",
        "finetune.epochs=5: finetune=none does not train; choose finetune=",
    ),
    (
        "finetune=sft finetune.learning_rate=0",
        "finetune.learning_rate=0.0: choose a number above 0; the paper's is 2e-6.",
    ),
    ("finetune=sft finetune.epochs=0", "finetune.epochs=0: choose at least 1; finetune=none does"),
    ("finetune=sft finetune.batch_size=0", "finetune.batch_size=0: choose at least 1."),
    ("finetune=sft finetune.warmup=1", "finetune.warmup=1.0: choose a fraction of at least 0 and"),
    ("finetune=sft finetune.schedule=up", "finetune.schedule=up: unknown. Known: constant, cosine"),
    (
        "finetune=sft finetune.lora.rank=3",
        "finetune.lora: sft has no adapters; choose finetune=",
    ),
    ("finetune=lora finetune.lora.rank=0", "finetune.lora.rank=0: choose at least 1."),
    ("finetune=lora finetune.lora.dropout=1", "finetune.lora.dropout=1.0: choose a fraction of at"),
    ("finetune.kind=foo", "finetune.kind=foo: unknown. Known: lora, none, sft."),
    ("task.name=sst2", "task.name=sst2: the name of another task than the chosen movie_reviews; "),
    ("method.name=none", "method.name=none: the name of another method than the chosen sadi-head;"),
]
IN_A_RUN = [
    ("method.top_k=0", "method.top_k=0: choose a whole number of at least 1."),
    ("method.top_k=[]", "method.top_k=[]: list at least one value, none twice."),
    ("method.top_k=[2,2]", "method.top_k=[2, 2]: list at least one value, none twice."),
    (
        "method.top_k=25",
        "method.top_k=25: tiny-random has 4 layers × 6 heads = 24 heads; choose at most 24.",
    ),
    ("method.strength=nan", "method.strength=nan: choose a finite number, or a list of them."),
    ("method.strength=[1,inf]", "method.strength=inf: choose a finite number, or a list of them."),
    ("method.strength=[]", "method.strength=[]: list at least one value, none twice."),
    ("method.delta=4", "method.strength and method.delta: give one of them and set the other to"),
    ("method.name=null", "method.name=null: give it a text; tables show it."),
    ("+method.foo=1", "method.foo: no such setting. Known: delta,"),
    ("method.kind=foo", "method.kind=foo: unknown. Known: caa, calibrate, hpr, inferaligner, iti,"),
    (
        "select_by=f1",
        "select_by=f1: a cell of task=boolq can be chosen by acc, acc_norm, exact_match, "
        "paper_match, auc, acc_biased; choose one of them, or null for the first.",
    ),
    ("task.n_pairs=0", "task.n_pairs=0: choose at least 1, or null for the default."),
    (
        "task.n_pairs=26",
        "task.n_pairs=26: boolq has 30 rows to identify on and keeps 6 of them to select on; "
        "choose at most 24.",
    ),
    (
        "task.n_select=99",
        "task.n_select=99: boolq has 30 rows to identify on, 8 of them for pairs; choose at most "
        "22.",
    ),
    ("task.n_test=13", "task.n_test=13: boolq has 12 test rows; choose at most 12."),
    ("task.fewshot=8", "task.fewshot=8: demonstrations come from the 8 identify rows; choose 0 to"),
    ("task.chance=7", "task.chance=7.0: choose a fraction between 0 and 1."),
    ("task.doc_to_choice=[A,'']", "task=boolq: "),
    (
        "task.data_dir=/nowhere",
        "task.data_dir=/nowhere: no folder /nowhere; expected there: ",
    ),
    ("model.dtype=int4", "model.dtype=int4: choose auto, float32, bfloat16, float16."),
    ("model.device=foo", "model.device=foo: not usable here ("),
    ("model.device=meta", "model.device=meta: not usable here ("),
    (
        "model.pretrained=/nowhere",
        "model.pretrained=/nowhere: no such folder; set model.pretrained",
    ),
    ("model=custom", "model.pretrained is not set: name a local folder or a hub model, or choose "),
    ("model.chat_template=true", "model.chat_template=true: the tokenizer of tiny-random has no "),
]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working directory with a few rows in boolq/."""
    write_rows(tmp_path / "boolq")
    monkeypatch.chdir(tmp_path)
    for name in ("SADI_BENCH_DATA", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def refused(finished, start: str) -> bool:
    assert finished.code == 2, finished.err
    assert len(finished.complaints) == 1
    assert finished.err.endswith(f"{finished.complaints[0]}\n")
    assert "Traceback" not in finished.err
    assert "Error executing job" not in finished.err
    return finished.complaints[0].startswith(f"sadi-bench: {start}")


@pytest.mark.parametrize(("typed", "start"), [*UNKNOWN, *WRONG_VALUES])
def test_a_mistake_in_what_was_typed_is_told_at_once(monkeypatch, typed, start):
    monkeypatch.setattr(experiment, "run", lambda *_: pytest.fail("a run was started"))
    finished = command(*typed.split(" "))
    assert refused(finished, start), finished.err
    assert finished.err.count("\n") == 1


@pytest.mark.parametrize(("typed", "start"), IN_A_RUN)
def test_a_mistake_found_by_a_run_is_told_in_one_line(folder, typed, start):
    finished = small_run(folder, typed)
    assert refused(finished, start), finished.err
    assert not list(folder.glob("runs/*/result.json"))


def test_values_of_the_wrong_type_are_refused_by_a_process_without_type_checks(folder):
    typed = ["method.top_k=x,1.5,2", "method.seed=x,0", "method.strength=x"]
    finished = subprocess.run(
        [*PROGRAM, *SMALL[:2], f"task.data_dir={folder / 'boolq'}", "-m", *typed],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    assert finished.returncode == 1
    (summary,) = (folder / "results" / "sweeps").glob("*.csv")
    told = [row["cause"] for row in csv.DictReader(io.StringIO(summary.read_text()))]
    seed = "method.seed=x: choose a whole number, 0 to 4294967295."
    text = "method.top_k=x: choose a whole number of at least 1, or a list of them."
    part = "method.top_k=1.5: choose a whole number of at least 1."
    strength = "method.strength=x: choose a finite number, or a list of them."
    assert told == [seed, text, seed, part, seed, strength]
    assert "Traceback" not in finished.stderr


def test_an_unusable_device_is_refused_by_its_name(folder):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert refused(small_run(folder, "model.device=cuda"), "model.device=cuda: not usable here (")


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ("{", "expected one JSON object a line (Expecting property name enclosed in double quotes"),
        ('{"question": "q", "passage": "p"}', "expected a text or value for answer, found None."),
        ('{"question": "q", "passage": " ", "answer": true}', "expected a text or value for passa"),
        (
            '{"question": "q", "passage": "p", "answer": 7}',
            "the right answer 7 is none of the choices ['No', 'Yes']; expected 0…1 or one of their",
        ),
    ],
)
def test_a_broken_row_is_named_by_file_and_line(folder, broken, complaint):
    file = folder / "boolq" / "dev.jsonl"
    lines = file.read_text().splitlines()
    lines[4] = broken
    file.write_text("\n".join(lines) + "\n")
    line = small_run(folder).complaints[0]
    assert f"{file} line 5: {complaint}" in line


def test_an_empty_answer_is_named_with_the_setting_it_comes_from(folder):
    line = small_run(folder, "task.doc_to_choice=[A,' ']").complaints[0]
    assert "an empty answer among ['A', ' ']; every answer of task.doc_to_choice needs" in line


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(folder):
    network, tokenizer = tiny_random(0)
    network.config.max_position_embeddings = 64
    network.save_pretrained(folder / "short")
    tokenizer.save_pretrained(folder / "short")
    finished = small_run(folder, f"model.pretrained={folder / 'short'}")
    assert refused(finished, "model short: a prompt with its answer has ")
    assert re.search(r"has \d{3} tokens, the context 64; choose", finished.err)


def test_a_model_of_no_known_family_is_refused_with_the_known_ones(folder):
    layers = [[["global", "local"], 1]]
    config = GPTNeoConfig(
        vocab_size=257, hidden_size=16, num_layers=2, num_heads=2, attention_types=layers,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPTNeoForCausalLM(config).save_pretrained(folder / "neo")
    finished = small_run(folder, f"model.pretrained={folder / 'neo'}")
    assert refused(finished, f"model.pretrained={folder / 'neo'}: model type 'gpt_neo' has no fam")
    assert "(known: bloom, cohere, falcon," in finished.err


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_model_folder_is_named(folder, damage):
    network, tokenizer = tiny_random(0)
    network.save_pretrained(folder / "cut")
    tokenizer.save_pretrained(folder / "cut")
    file = folder / "cut" / damage
    file.write_bytes(file.read_bytes()[:100])
    assert refused(small_run(folder, "model.pretrained=cut"), "model.pretrained=cut: does not load")


@pytest.fixture
def no_hub(monkeypatch):
    """Nothing listens at this address: every connection is refused."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("typed", "start", "remedy"),
    [
        ("model.pretrained=nobody/none", "model.pretrained=nobody/none: http://", "smollm2-135m"),
        ("model.tokenizer=nobody/none", "model.tokenizer=nobody/none: http://", "a local folder"),
        ("task.data_dir=null", "task=boolq: the hub did not give nobody/none", "task.data_dir or"),
    ],
)
@pytest.mark.usefixtures("no_hub")
def test_a_hub_that_does_not_answer_is_said_with_what_to_set(folder, typed, start, remedy):
    network, tokenizer = tiny_random(0)
    network.save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    local = [] if "pretrained" in typed else ["model.pretrained=tiny"]
    finished = small_run(folder, typed, *local, "task.hub.path=nobody/none")
    assert refused(finished, start), finished.err
    assert "http://127.0.0.1:9 does not answer" in finished.err
    assert remedy in finished.err


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (GatedRepoError, "a gated model: accept its licence on the hub and set HF_TOKEN"),
        (RepositoryNotFoundError, "the hub has no such model, or it is private (set HF_TOKEN)"),
    ],
)
def test_a_model_that_the_hub_withholds_says_what_to_set(folder, monkeypatch, kind, words):
    def withheld(*_args, **_kwargs):
        # as transformers raises it; the hub's error is made without the response it would carry
        raise OSError("You are trying to access a repo, id 6401-403.") from kind.__new__(kind)

    monkeypatch.setattr(loading, "hub_answers", lambda: True)
    monkeypatch.setattr(AutoConfig, "from_pretrained", withheld)
    finished = small_run(folder, "model.pretrained=some/model")
    assert refused(finished, f"model.pretrained=some/model: {words}; set model.pretrained to a ")


def test_a_place_that_is_no_folder_is_refused_for_runs(folder):
    (folder / "file").write_text("")
    finished = small_run(folder, f"runs_dir={folder / 'file'}")
    assert refused(finished, f"{folder / 'file'}/")
    assert "cannot be written: Not a directory" in finished.err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full device is a Linux thing")
def test_a_log_on_a_full_disk_is_one_line():
    with (
        pytest.raises(SettingError, match="/dev/full: cannot be written: No space left"),
        log_to(Path("/dev/full")),
    ):
        logging.getLogger("sadi_bench").warning("a line")


def test_a_full_disk_leaves_whole_files_one_line_and_exit_code_2(folder):
    """The limit on a file's size stands for the disk's; the process is a real one."""
    small = [*SMALL, f"task.data_dir={folder / 'boolq'}", "runs_dir=runs"]
    finished = subprocess.run(
        [*PROGRAM, *small], capture_output=True, text=True, cwd=folder,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),
    )  # fmt: skip
    assert finished.returncode == 2
    last = finished.stderr.splitlines()[-1]
    shard = r"runs/\w+/\.shards/\w+/\d+-\w+\.safetensors"
    assert re.fullmatch(rf"sadi-bench: {shard}: File too large; make room there .*", last)
    assert "Traceback" not in finished.stderr
    left = {file.name for file in folder.glob("runs/*/*")}
    assert left == {"config.yaml", "error.txt", "log.txt", ".shards"}


@pytest.mark.parametrize("full", [("debug=true", {}), ("debug=false", {"HYDRA_FULL_ERROR": "1"})])
@pytest.mark.parametrize("typed", ["method.top_k=0", "method.topk=0"])
def test_the_traceback_comes_back_where_it_is_asked_for(folder, monkeypatch, full, typed):
    debug, environment = full
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match="top_?k"):
        small_run(folder, typed, debug)


def test_a_mistake_of_the_program_keeps_its_traceback(folder, monkeypatch):
    monkeypatch.setattr(stages, "score_grid", lambda *_: [].pop())
    with pytest.raises(IndexError, match="pop from empty list"):
        small_run(folder)


def test_an_interrupted_run_leaves_no_result_and_the_next_one_works(folder, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stages, "score_grid", interrupted)
        stopped = small_run(folder)
    assert (stopped.code, stopped.complaints) == (
        130,
        [
            "sadi-bench: interrupted; nothing that was finished is lost: the same command goes on "
            "from here"
        ],
    )
    assert not list(folder.glob("runs/*/result.json"))
    assert small_run(folder).code == 0


def test_a_run_that_another_process_computes_is_not_computed_twice(folder):
    path = small_run(folder).path
    with writing_run(path.parent, path.name):
        finished = small_run(folder, "force=true")
    assert refused(finished, f"{path}: another process is computing this very run; wait until")
    assert (path / "result.json").is_file()


def test_a_damaged_result_is_said_and_force_mends_it(folder):
    path = small_run(folder).path
    (path / "result.json").write_text('{"a":')
    assert refused(small_run(folder), f"{path}/result.json: cannot be read: Expecting value")
    assert small_run(folder, "force=true").result["sadi_bench"]["task"] == "boolq"


def test_nothing_is_left_in_the_folder_but_the_runs(folder):
    small_run(folder, "-m", "seed=0,1")
    assert {path.name for path in folder.iterdir()} == {"boolq", "runs", "sweeps"}
    assert {path.suffix for path in (folder / "runs").iterdir()} == {""}
    assert {path.suffix for path in (folder / "sweeps").iterdir()} == {".md", ".csv"}
    assert not [path for path in folder.rglob(".*")]


def test_help_names_every_choice_and_loads_no_torch():
    code = (
        "import sys, sadi_bench.cli as c\ntry: c.main()\nfinally: sys.exit('torch' in sys.modules)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    words = set(finished.stdout.replace(",", " ").split())
    assert words >= {name for group in GROUPS for name in choices(group)}
    assert "base_task" not in finished.stdout
    assert len(finished.stdout.splitlines()) < 55


def test_the_composed_config_can_be_shown():
    finished = subprocess.run(
        [*PROGRAM, "--cfg", "job", "experiment=smoke"], capture_output=True, text=True, timeout=60
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "pretrained: tiny-random" in finished.stdout


def test_a_reader_that_has_enough_gets_no_traceback():
    finished = subprocess.run(
        f"{' '.join(PROGRAM)} --help | true", shell=True, capture_output=True, text=True
    )
    assert finished.stderr == ""


def test_the_same_command_without_a_mistake_succeeds(folder):
    finished = small_run(folder)
    assert (finished.code, finished.complaints) == (0, [])
    assert json.loads((finished.path / "result.json").read_text())
