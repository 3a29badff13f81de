"""Fine-tuned checkpoints: what is trained, kept, used again and gone on with."""

import errno
import fcntl
import io
import json
import logging
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from damage import flip, full_disk
from sadi_bench.aside import delete_leftovers, making
from sadi_bench.errors import SettingError
from sadi_bench.models import finetune
from sadi_bench.models.finetune import finetuned
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.loading import Models, load_language_model, resolved
from sadi_bench.models.spec import FinetuneSpec, LoraSpec, ModelSpec

MODEL = ModelSpec(pretrained="tiny-random", device="cpu", dtype="float32")
SFT = FinetuneSpec("sft", learning_rate=1e-3)
LORA = FinetuneSpec("lora", learning_rate=1e-2, lora=LoraSpec(dropout=0.1))
MODELS = Models()
EXAMPLES = [(tuple(range(5, 9 + i)), (60 + i, 9)[: 1 + i % 2]) for i in range(8)]
STEPS = 3 * 2  # epochs x batches


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path) -> Path:
    """Checkpoints of this test alone."""
    monkeypatch.setattr(finetune, "cache_folder", lambda: tmp_path)
    return tmp_path / "finetuned"


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """Count the training steps; `stop_at` of them interrupt the process."""
    done: list[int] = []
    original = transformers.Trainer.training_step

    def counted(self, *args, **kwargs):
        done.append(self.state.global_step)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(transformers.Trainer, "training_step", counted)
    return done


def tune(spec: FinetuneSpec = SFT, model: ModelSpec = MODEL, **changed) -> LanguageModel:
    settings = {"examples": EXAMPLES, "seed": 0, **changed}
    return finetuned(resolved(model), spec, models=MODELS, **settings)


def weights(lm: LanguageModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in lm.network.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def answer_logprob(lm: LanguageModel) -> float:
    total = 0.0
    for prompt, answer in EXAMPLES:
        with torch.no_grad():
            logits = lm.network(torch.tensor([[*prompt, *answer]])).logits[0].float()
        places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        logprobs = logits.log_softmax(-1)
        total += sum(float(logprobs[p, t]) for p, t in zip(places, answer, strict=True))
    return total


@pytest.mark.parametrize("spec", [SFT, LORA], ids=["sft", "lora"])
def test_three_epochs_raise_the_answers_log_probability(spec):
    before = answer_logprob(MODELS.load(MODEL))
    tuned = tune(spec)
    assert answer_logprob(tuned) > before + 5
    losses = tuned.finetune["train_loss"]
    assert len(losses) == 3
    assert losses[0] > losses[1] > losses[2]
    assert not tuned.network.training
    assert tuned.name == "tiny-random"


def test_no_fine_tuning_gives_the_model_as_it_is(kept):
    assert tune(FinetuneSpec()) is MODELS.load(MODEL)
    assert not kept.exists()


@pytest.mark.parametrize("spec", [SFT, LORA], ids=["sft", "lora"])
def test_a_second_call_trains_nothing_and_loads_the_same_weights(spec, kept, steps):
    first = tune(spec)
    trained, facts = weights(first), first.finetune
    assert len(steps) == STEPS
    MODELS.clear()
    second = tune(spec)
    assert len(steps) == STEPS
    assert equal(trained, weights(second))
    assert (facts["reused"], second.finetune["reused"]) == (False, True)
    assert {**facts, "reused": True} == second.finetune
    assert [path.name for path in kept.iterdir() if path.is_dir()] == [facts["checkpoint"]]


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"examples": EXAMPLES[:4]},
        {"examples": [((5, 6), (7, 8)), *EXAMPLES[1:]]},
        {"spec": replace(SFT, learning_rate=2e-3)},
        {"spec": replace(SFT, schedule="constant")},
        {"model": replace(MODEL, seed=1)},
    ],
    ids=["seed", "fewer", "tokens", "rate", "schedule", "model"],
)
def test_what_decides_the_weights_has_a_checkpoint_of_its_own(other):
    first, second = tune(), tune(**other)
    assert first.finetune["checkpoint"] != second.finetune["checkpoint"]
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize("spec", [SFT, LORA], ids=["sft", "lora"])
@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_a_resumed_training_ends_with_the_weights_of_a_whole_one(
    spec, stop_at, kept, steps, monkeypatch
):
    whole = tune(spec)
    expected, losses = weights(whole), whole.finetune["train_loss"]
    MODELS.clear()
    kept.rename(kept.with_name("elsewhere"))
    steps.clear()
    counted = transformers.Trainer.training_step

    def stopped(self, *args, **kwargs):
        if len(steps) == stop_at:
            raise KeyboardInterrupt
        return counted(self, *args, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(transformers.Trainer, "training_step", stopped)
        tune(spec)
    assert {path.suffix for path in kept.iterdir()} == {".partial"}
    steps.clear()
    resumed = tune(spec)
    assert steps == list(range(stop_at // 2 * 2, STEPS))  # from the last epoch that was finished
    assert equal(expected, weights(resumed))
    assert resumed.finetune["train_loss"] == pytest.approx(losses)


def test_a_training_that_was_done_but_not_saved_is_saved_without_another_step(
    kept, steps, monkeypatch
):
    def stopped():
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(finetune, "quiet_transformers", stopped)
        tune()
    steps.clear()
    found = tune()
    (saved,) = (path for path in kept.iterdir() if path.is_dir())
    found_weights, losses = weights(found), found.finetune["train_loss"]
    assert steps == []
    saved.rename(kept.parent / "aside")
    whole = tune()
    assert equal(found_weights, weights(whole))
    assert losses == whole.finetune["train_loss"]


def test_a_full_disk_after_the_training_costs_none_of_it(kept, steps, monkeypatch):
    def stopped():
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(finetune, "quiet_transformers", stopped)
        tune()
    steps.clear()
    with full_disk(20_000), pytest.raises(SettingError) as caught:
        tune()
    assert "finetune=sft: the checkpoint cannot be written to" in str(caught.value)
    assert {path.suffix for path in kept.iterdir()} == {".partial"}
    tune()
    assert steps == []


def test_a_checkpoint_that_was_cut_off_while_written_is_not_gone_on_from(kept, steps):
    expected = weights(tune())
    (done,) = (path for path in kept.iterdir() if path.is_dir())
    trainer = done.with_suffix(".partial") / "trainer"
    for step, state in ((2, None), (4, '{"epoch": 1.')):
        (trainer / f"checkpoint-{step}").mkdir(parents=True)
        if state:
            (trainer / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    done.rename(kept.parent / "aside")
    steps.clear()
    assert equal(expected, weights(tune()))
    assert len(steps) == STEPS


def test_the_finished_folder_holds_no_pickle_and_loads_as_a_model_of_its_own(kept):
    tuned = tune()
    folder = kept / tuned.finetune["checkpoint"]
    assert {file.suffix for file in folder.rglob("*")} == {".json", ".safetensors"}
    network = AutoModelForCausalLM.from_pretrained(folder)
    assert network.dtype == torch.float32
    assert equal(weights(tuned), network.state_dict())
    assert network.config.use_cache
    text = "Answer: yes"
    assert AutoTokenizer.from_pretrained(folder).encode(text) == tuned.encode(text)
    loaded = load_language_model(resolved(ModelSpec(pretrained=str(folder), device="cpu")))
    assert loaded.name == folder.name
    facts = json.loads((folder / "finetune.json").read_text())
    assert facts.items() <= tuned.finetune.items()
    assert (facts["kind"], facts["examples"], facts["learning_rate"]) == ("sft", 8, 1e-3)


def test_small_steps_are_kept_in_float32_and_evaluated_in_the_runs_dtype(kept):
    """In bfloat16, where weights of 0.2 lie 1e-3 apart, steps of 2e-6 would change nothing."""
    low = replace(MODEL, dtype="bfloat16")
    tuned = tune(replace(SFT, learning_rate=2e-6), low)
    assert tuned.dtype == torch.bfloat16
    saved = AutoModelForCausalLM.from_pretrained(kept / tuned.finetune["checkpoint"])
    base = MODELS.load(MODEL).network.state_dict()
    assert saved.dtype == torch.float32
    moved = (saved.lm_head.weight - base["lm_head.weight"]).abs()
    assert (moved > 0).float().mean() > 0.9
    assert moved.max() < 1e-4


def test_the_base_leaves_memory_and_is_loaded_whole_the_next_time():
    base = MODELS.load(MODEL)
    before = weights(base)
    tune()
    assert sum(parameter.numel() for parameter in base.network.parameters()) == 0
    assert equal(before, weights(MODELS.load(MODEL)))


def test_training_leaves_the_global_generators_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    tune(LORA)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_second_process_waits_and_loads_what_the_first_trained(kept, steps):
    done = kept / tune().finetune["checkpoint"]
    aside, partial = kept.parent / "aside", done.with_suffix(".partial")
    done.rename(aside)
    partial.mkdir()
    first = FileLock(partial.with_suffix(".lock"))
    first.acquire()
    steps.clear()
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(tune().finetune["reused"]))
    waiting.start()
    waiting.join(1)
    assert waiting.is_alive()
    aside.rename(done)
    first.release()
    waiting.join(60)
    assert (found, steps) == ([True], [])


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_drawn_on_a_terminal_alone(terminal, monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", screen)
    tune()
    assert (f"{STEPS}/{STEPS}" in screen.getvalue()) == terminal
    assert "shards" not in screen.getvalue()
    assert capsys.readouterr().out == ""


def test_nothing_to_train_on_is_refused():
    with pytest.raises(SettingError, match="finetune=sft: there is no example"):
        tune(examples=[])


def test_a_training_that_diverges_names_the_learning_rate_and_leaves_nothing(kept):
    with pytest.raises(SettingError, match=r"finetune.learning_rate=1e\+30: the training diverged"):
        tune(replace(SFT, learning_rate=1e30))
    assert not list(kept.rglob("*"))
    assert answer_logprob(MODELS.load(MODEL)) > -1e4  # not the spoilt one


def test_unknown_target_modules_are_refused_in_one_line():
    with pytest.raises(SettingError, match="finetune.lora.target_modules=nowhere: ") as error:
        tune(FinetuneSpec("lora", lora=LoraSpec(target_modules="nowhere")))
    assert "\n" not in str(error.value)


def test_too_little_room_is_told_before_training(monkeypatch, steps):
    usage = finetune.shutil._ntuple_diskusage(10**6, 10**6, 1000)
    monkeypatch.setattr(finetune.shutil, "disk_usage", lambda _folder: usage)
    with pytest.raises(SettingError, match="checkpoints need .* GB; make room, or set SADI_BENCH"):
        tune()
    assert not steps


def test_another_card_than_the_first_is_refused_with_the_remedy():
    with pytest.raises(SettingError, match="set CUDA_VISIBLE_DEVICES=1 and model.device=cuda"):
        finetune._check_device(replace(MODEL, device="cuda:1"), SFT)


def test_a_damaged_checkpoint_is_named_and_trained_again(kept, steps, caplog):
    first = tune()
    expected, folder = weights(first), kept / first.finetune["checkpoint"]
    for name in ("model.safetensors", "config.json", "finetune.json", "sealed.json"):
        steps.clear()
        caplog.clear()
        if name == "model.safetensors":
            flip(folder / name)
        else:
            (folder / name).write_text("{")
        with caplog.at_level(logging.WARNING):
            again = tune()
        assert equal(expected, weights(again)), name
        assert (len(steps), again.finetune["reused"]) == (STEPS, False)
        (told,) = (message for message in caplog.messages if "made again" in message)
        assert told.startswith(f"{folder / name}: ")
    assert [path.name for path in kept.iterdir()] == [folder.name]


def interrupt(monkeypatch) -> None:
    """Stop a training in its last epoch, where the checkpoint of the one before is kept."""
    original, done = transformers.Trainer.training_step, []

    def stopped(self, *args, **kwargs):
        done.append(1)
        if len(done) == STEPS:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(transformers.Trainer, "training_step", stopped)
        tune()


def test_a_damaged_training_is_not_gone_on_with(kept, steps, monkeypatch, caplog):
    expected = weights(tune())
    kept.rename(kept.with_name("elsewhere"))
    interrupt(monkeypatch)
    (saved,) = kept.glob("*.partial/trainer/checkpoint-*")
    flip(saved / "model.safetensors")
    steps.clear()
    assert equal(expected, weights(tune()))
    assert len(steps) == STEPS
    assert any(message.startswith(f"{saved}/model.safetensors: not") for message in caplog.messages)


def test_a_training_that_is_not_done_outlives_what_else_is_swept(kept, steps, monkeypatch):
    interrupt(monkeypatch)
    (partial,) = kept.iterdir()
    delete_leftovers(kept.parent)
    steps.clear()
    key = tune().finetune["checkpoint"]
    assert 0 < len(steps) < STEPS
    assert partial == kept / f"{key}.partial"
    (partial / "trainer" / "checkpoint-4").mkdir(parents=True)  # killed before it was deleted
    delete_leftovers(kept.parent)
    assert [path.name for path in kept.iterdir()] == [key]


def test_a_holder_that_is_interrupted_before_training_costs_the_waiter_nothing(kept, steps):
    done = kept / tune().finetune["checkpoint"]
    done.rename(kept.parent / "aside")
    steps.clear()
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(tune().finetune["reused"]))
    with pytest.raises(KeyboardInterrupt), making(done, resumable=True):
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive()
        raise KeyboardInterrupt
    waiting.join(60)
    assert (found, len(steps)) == ([False], STEPS)


def test_a_file_system_without_locks_is_told_in_one_line(kept, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    expected = weights(tune())
    kept.rename(kept.with_name("elsewhere"))
    monkeypatch.setattr(fcntl, "flock", unsupported)
    with caplog.at_level(logging.INFO):
        again = tune()
    assert equal(expected, weights(again))
    assert sum("has no locks" in message for message in caplog.messages) == 1
    assert [path.name for path in kept.iterdir()] == [again.finetune["checkpoint"]]
