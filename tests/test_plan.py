"""A plan counts what the run then does, on tiny-random and rows of our own."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cases import contrasts, requests_for, tiny_lm
from sadi_bench.batches.executor import Executor
from sadi_bench.composing import composed, typed_runs
from sadi_bench.experiment import SHARDS, run
from sadi_bench.models.families import Site
from sadi_bench.models.tiny_random import tiny_random
from sadi_bench.planning.batch_cost import batch_cost
from sadi_bench.planning.cards import CARDS
from sadi_bench.planning.network_size import network_size
from sadi_bench.planning.planner import Planner
from sadi_bench.scoring.choices import choice_job
from sadi_bench.session import Session
from sadi_bench.steering.activations import mean_difference
from sadi_bench.steering.methods.sadi import Sadi
from terminal import command, write_rows
from text_runs import SIZES, write_tasks
from tiny import TINY

BOOLQ = ("model=tiny-random", "task=boolq", "task.data_dir=boolq", "task.n_pairs=4",
         "task.n_select=6", "task.n_test=6", "runs_dir=runs", "token_budget=900")  # fmt: skip
GRID = ("method.top_k=[1,3]", "method.strength=[1,5]")
METHODS = {
    "sadi-head": GRID,
    "sadi-neuron": GRID,
    "sadi-hidden": (*GRID, "method.patch=inflight"),
    "caa": ("method.layer=[1,2]", "method.multiplier=2"),
    "tda": (),
    "inferaligner": ("method.top_k=2",),
    "calibrate": (),
    "none": (),
}


def _attention(query: tuple, key: tuple, *_: object, **__: object) -> int:
    batch, heads, queries, width = query
    return 4 * batch * heads * queries * key[2] * width


def flop_counter() -> FlopCounterMode:
    """torch's own counter, which does not know the CPU's attention."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={kernel: _attention})


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    write_rows(tmp_path / "boolq")
    write_tasks(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SADI_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SADI_BENCH_DATA", raising=False)


def counted(config, session: Session) -> tuple[dict, int, int]:
    """Do a run; return its result, the tokens that left its network, and its FLOPs."""
    tokens = 0

    def count(_module, _args, output) -> None:
        nonlocal tokens
        tokens += output.numel() // output.shape[-1]

    network = session.models.load(config.model).network
    handle = network.model.norm.register_forward_hook(count)
    with flop_counter() as counter:
        result = run(config, session).result["sadi_bench"]
    handle.remove()
    tokens -= len(Site)  # the run notes every site's width, read off one token each
    return result, tokens, counter.get_total_flops()


def summed(batches: dict) -> dict[str, int]:
    return {name: each["batches"] for name, each in batches.items()}


@pytest.mark.parametrize("method", METHODS)
def test_documents_cells_batches_tokens_and_flops_are_those_of_the_run(method):
    config = composed(*BOOLQ, f"method={method}", *METHODS[method])
    session = Session()
    plan = Planner(session).plan(config)
    result, tokens, flops = counted(config, session)
    assert plan.state == "new"
    assert plan.documents == result["counts"]["select"] + result["counts"]["test"]
    assert plan.cells == result["counts"]["cells"]
    batches: dict[str, int] = {}
    for part in plan.parts:
        batches[part.job.name] = batches.get(part.job.name, 0) + part.batches
    assert batches == summed(result["batches"])
    assert plan.left.tokens == tokens
    assert plan.left.flops == pytest.approx(flops, rel=0.02)


@pytest.mark.parametrize("name", TINY)
def test_a_batch_of_every_family_is_counted_as_its_network_runs_it(name):
    lm = tiny_lm(name)
    size = network_size(lm)
    for site in (Site.head, Site.neuron):
        method = Sadi(site=site.value, top_k=[1, 4], strength=[2.0, 5.0])
        steering = method.fit(lm, contrasts())
        job = choice_job(lm, requests_for(name), steering)
        with flop_counter() as counter, torch.inference_mode():
            for batch in job.batches:
                job.run(lm, batch, 0)
        expected = sum(batch_cost(job, size, batch).flops for batch in job.batches)
        assert expected == pytest.approx(counter.get_total_flops(), rel=0.02), site


def test_a_sweep_has_a_row_a_run_and_tells_what_would_be_refused():
    typed = ("method=none,sadi-head", "seed=0,1", "task=boolq,missing")
    assert len(typed_runs("-m", *typed)) == 8
    assert typed_runs("task=copa") == [("task=copa",)]
    finished = command("plan", "-m", *BOOLQ, "method=none,caa,nothing")
    assert finished.code == 1
    lines = finished.out.splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [
        ["boolq", "tiny-random", method] for method in ("none", "caa")
    ]
    assert lines[3].startswith("2 runs, 0 finished")
    assert any(line.startswith("refused: ") for line in lines)
    assert "method=nothing: unknown" in " ".join(finished.out.split())
    assert max(map(len, lines)) <= 100


def test_an_experiment_of_the_paper_is_a_sweep():
    runs = typed_runs("experiment=table1", "model=tiny-random")
    assert len(runs) == 7 * 6
    assert {"experiment=table1", "task=copa", "method=iti"} <= {s for each in runs for s in each}


def test_a_finished_run_counts_as_nothing():
    words = (*BOOLQ, "method=none")
    config = composed(*words)
    run(config)
    plan = Planner().plan(config)
    assert (plan.state, plan.here, plan.left.flops) == ("finished", 0.0, 0)
    assert "finished" in command("plan", *words).out
    assert "1 finished" in command("plan", "-m", *words, "seed=0,1").out


def test_batches_that_lie_in_shards_are_not_left():
    config, session = composed(*BOOLQ, *GRID), Session()
    before = Planner(session).plan(config)
    part = next(part for part in before.parts if part.kind == "choices")
    assert part.batches > 2
    lm = session.models.load(config.model)
    results = Executor(before.run.path / SHARDS).results(part.job, lm)
    next(results), next(results)
    after = Planner(session).plan(config)
    again = next(part for part in after.parts if part.kind == "choices")
    assert (after.state, again.done, again.batches) == ("unfinished", 2, part.batches)
    assert 0 < again.left.flops < part.left.flops == again.cost.flops


def test_activations_that_the_cache_holds_are_not_read_again():
    config, session = composed(*BOOLQ, *GRID), Session()
    plan = Planner(session).plan(config)
    lm = session.models.load(config.model)
    mean_difference(lm, plan.parts[0].job.pairs, Site.head)
    again = Planner(session).plan(config)
    assert again.parts[0].done == plan.parts[0].batches > plan.parts[0].done
    assert again.parts[0].left.flops == 0


def test_a_plan_writes_nothing(tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert command("plan", *BOOLQ, *GRID).code == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_of_config_and_tokenizer_alone_is_planned_without_a_time(tmp_path):
    network, tokenizer = tiny_random(0)
    network.config.save_pretrained(tmp_path / "bare")
    tokenizer.save_pretrained(tmp_path / "bare")
    for method in ("sadi-head", "inferaligner", "calibrate"):
        typed = (*BOOLQ, f"method={method}", *METHODS[method])
        bare = Planner().plan(composed(*typed, "model=custom", "model.pretrained=bare"))
        whole = Planner().plan(composed(*typed))
        assert bare.here is None
        assert "its weights are not here" in bare.notes[0]
        assert [(p.name, p.prompts, p.batches) for p in bare.parts] == [
            (p.name, p.prompts, p.batches) for p in whole.parts
        ]
        assert bare.on(CARDS[0]) > 0
    text = command("plan", *BOOLQ, "model=custom", "model.pretrained=bare", *GRID)
    assert text.code == 0
    assert max(map(len, text.out.splitlines())) <= 100


@pytest.mark.parametrize("method", ["none", "caa"])
def test_written_answers_are_counted_at_their_full_length(method):
    settings = ("method.layer=1", "method.multiplier=[-2,4]") if method == "caa" else ()
    words = ("model=tiny-random", "task=triviaqa", "task.data_dir=triviaqa", *SIZES["triviaqa"],
             "task.generation_kwargs.max_gen_toks=5", f"method={method}", *settings)  # fmt: skip
    config, session = composed(*words, "runs_dir=runs"), Session()
    plan = Planner(session).plan(config)
    result, tokens, flops = counted(config, session)
    written = [part for part in plan.parts if part.kind == "texts"]
    assert sum(part.batches for part in written) == sum(
        count for name, count in summed(result["batches"]).items() if name.startswith("writing")
    )
    assert 0.5 * plan.left.tokens < tokens <= plan.left.tokens
    assert 0.5 * plan.left.flops < flops <= 1.02 * plan.left.flops
    told = command("plan", *words, "runs_dir=elsewhere")
    assert told.code == 0, told.err
    assert "likelihood of texts" in told.out
    assert max(map(len, told.out.splitlines())) <= 100


def test_other_tasks_and_fine_tuning_are_parts_of_the_plan():
    other = "also=[{name: triviaqa, data_dir: triviaqa, n_pairs: 4, n_test: 3}]"
    config = composed(*BOOLQ, *GRID, other, "finetune=sft", "finetune.epochs=2")
    plan = Planner().plan(config)
    assert any(part.name.endswith(", triviaqa") for part in plan.parts)
    assert plan.training.passes == 2 * 3
    once = Planner().plan(replace(config, finetune=replace(config.finetune, epochs=1)))
    assert plan.training.flops == 2 * once.training.flops
    words = (*BOOLQ, "method=none", "finetune=lora")
    assert "fine-tuning" in command("plan", *words).out


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("method.top_k=999", "method.top_k=999"),
        ("task.n_pairs=1000", "task.n_pairs=1000"),
        ("nosuch=1", "nosuch"),
        ("--cfg", "plan: --cfg is not known"),
    ],
)
def test_what_the_run_would_refuse_the_plan_refuses_in_one_line(typed, told):
    finished = command("plan", *BOOLQ, typed)
    assert (finished.code, len(finished.complaints)) == (2, 1)
    assert told in finished.err
    assert "Traceback" not in finished.err


def test_own_configs_are_found(tmp_path):
    folder = tmp_path / "own" / "task"
    folder.mkdir(parents=True)
    body = Path(typed_own()).read_text(encoding="utf-8").replace("name: boolq", "name: mine")
    (folder / "mine.yaml").write_text(body, encoding="utf-8")
    words = [word for word in BOOLQ if word != "task=boolq"]
    finished = command("plan", "--config-dir", str(tmp_path / "own"), *words, "task=mine")
    assert finished.code == 0, finished.err
    assert finished.out.startswith("mine, tiny-random, sadi-head")


def typed_own() -> Path:
    from sadi_bench.provenance import config_folder

    return config_folder() / "task" / "boolq.yaml"
