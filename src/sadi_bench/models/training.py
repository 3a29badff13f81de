"""Train a network on answers with transformers' Trainer, and go on where it was interrupted."""

import logging
import math
import random
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from sadi_bench.errors import SettingError
from sadi_bench.models.loading import quiet_transformers
from sadi_bench.models.spec import FinetuneSpec, LoraSpec
from sadi_bench.sealed import broken, seal

log = logging.getLogger(__name__)
NO_LOSS = -100


def train(
    network: PreTrainedModel,
    examples: Sequence[tuple[Sequence[int], Sequence[int]]],
    spec: FinetuneSpec,
    *,
    name: str,
    seed: int,
    folder: Path,
    device: str,
    autocast: bool,
) -> tuple[PreTrainedModel, list[float]]:
    """Train `network` in place; return it, adapters merged, and the mean loss of every epoch.

    `folder` keeps a checkpoint an epoch; one that is there is gone on from.
    """
    use_cache = network.config.use_cache
    with quiet_transformers(), _own_randomness(), _failures(network, spec, folder):
        set_seed(seed)
        wrapped = with_adapters(network, spec.lora) if spec.kind == "lora" else network
        trainer = Trainer(
            model=wrapped,
            args=_arguments(spec, seed, folder, device, autocast),
            train_dataset=list(examples),
            data_collator=answer_batch,
            callbacks=[_Epochs(name, spec)],
        )
        for unwanted in (ProgressCallback, PrinterCallback):  # standard output is for the table
            trainer.remove_callback(unwanted)
        if sys.stderr.isatty():
            trainer.add_callback(_Bar)
        trainer.train(resume_from_checkpoint=_last_whole_checkpoint(folder))
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        trained = wrapped.merge_and_unload() if spec.kind == "lora" else wrapped
    if not all(torch.isfinite(parameter).all() for parameter in trained.parameters()):
        raise _diverged(spec, math.nan, folder)
    trained.config.use_cache = use_cache  # Trainer turns it off
    return trained.eval(), losses


def answer_batch(examples: Sequence[tuple[Sequence[int], Sequence[int]]]) -> dict[str, Tensor]:
    """Pad prompt + answer on the right; only the answer's tokens have labels.

    The loss is the mean over a batch's answer tokens. No end mark is appended: answers are scored
    without one.
    """
    width = max(len(prompt) + len(answer) for prompt, answer in examples)
    shape = len(examples), width
    batch = {
        "input_ids": torch.zeros(shape, dtype=torch.long),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
        "labels": torch.full(shape, NO_LOSS, dtype=torch.long),
    }
    for row, (prompt, answer) in enumerate(examples):
        end = len(prompt) + len(answer)
        batch["input_ids"][row, :end] = torch.tensor([*prompt, *answer])
        batch["attention_mask"][row, :end] = 1
        batch["labels"][row, len(prompt) : end] = torch.tensor(list(answer))
    return batch


def with_adapters(network: PreTrainedModel, lora: LoraSpec) -> Any:
    """Wrap a network in LoRA's adapters, which alone are trained."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
    )
    try:
        with warnings.catch_warnings():
            # peft asks transformers 5 for a property that is to be renamed in 6
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            wrapped = get_peft_model(network, config)
    except ValueError as error:
        named = f"finetune.lora.target_modules={lora.target_modules}"
        raise SettingError(f"{named}: {error}") from error
    wrapped.peft_config["default"].base_model_name_or_path = None  # or saving asks the hub for it
    return wrapped


def _arguments(
    spec: FinetuneSpec, seed: int, folder: Path, device: str, autocast: bool
) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder),
        learning_rate=spec.learning_rate,
        num_train_epochs=spec.epochs,
        per_device_train_batch_size=spec.batch_size,
        lr_scheduler_type=spec.schedule,
        warmup_steps=spec.warmup,  # below 1 it is a fraction
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        optim="adamw_torch",
        bf16=autocast,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device.startswith("cuda"),
        seed=seed,
        data_seed=seed,
        save_strategy="epoch",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,  # it would write 0 for a loss that is NaN
        report_to=[],
        remove_unused_columns=False,
        label_names=["labels"],
    )
    # Several cards would each take a batch, and batch_size would no longer be what it says.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


class _Bar(ProgressCallback):
    """Draw a bar of this program's kind, and leave the losses to the log."""

    def on_train_begin(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ARG002
        """Begin where the training does, which may have been interrupted."""
        done, steps = state.global_step, state.max_steps
        self.training_bar = tqdm(total=steps, initial=done, desc="fine-tuning", unit="step")
        self.current_step = done

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:  # noqa: ANN001, ARG002
        """Write nothing to standard output."""


class _Epochs(TrainerCallback):
    """Write a line an epoch, keep the last checkpoint, stop where the loss is no number."""

    def __init__(self, name: str, spec: FinetuneSpec) -> None:
        self.name, self.spec = name, spec

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:  # noqa: ANN001, ARG002
        """Read the epoch's mean loss off Trainer's log."""
        if "loss" not in (logs or {}):
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise _diverged(self.spec, loss, Path(args.output_dir))
        epoch, of, kind = round(state.epoch), self.spec.epochs, self.spec.kind
        log.info("%s: %s epoch %d of %d: loss %.4f", self.name, kind, epoch, of, loss)

    def on_save(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ARG002
        """Seal the checkpoint, then delete older ones (Trainer would go by the files' times)."""
        seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", {})
        for folder in Path(args.output_dir).glob("checkpoint-*"):
            if folder.name != f"checkpoint-{state.global_step}":
                shutil.rmtree(folder)


def _diverged(spec: FinetuneSpec, loss: float, folder: Path) -> SettingError:
    """Build the error for a training that left the number range; its checkpoints are useless."""
    shutil.rmtree(folder, ignore_errors=True)
    return SettingError(
        f"finetune.learning_rate={spec.learning_rate}: the training diverged (loss {loss}); choose "
        "a smaller one."
    )


def _last_whole_checkpoint(folder: Path) -> str | None:
    """Find the checkpoint to go on from; one that was cut off or damaged is named and deleted."""
    while folder.is_dir() and (last := get_last_checkpoint(str(folder))):
        if (reason := broken(Path(last), full=True)) is not None:
            log.warning("%s; the training does not go on from there", reason)
            shutil.rmtree(last)
            continue
        log.info("training goes on from %s", Path(last).name)
        return last
    return None


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Leave the global generators as they were: a kept checkpoint must give the same run."""
    state, numpy_state = random.getstate(), np.random.get_state()
    cards = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=cards):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


@contextmanager
def _failures(network: PreTrainedModel, spec: FinetuneSpec, folder: Path) -> Iterator[None]:
    """Say in one line that memory, or the disk, is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        gigabytes = sum(parameter.numel() for parameter in network.parameters()) * 16 / 1e9
        raise SettingError(
            f"finetune.batch_size={spec.batch_size}: out of memory; with finetune=sft weights, "
            f"gradients and AdamW's moments alone take {gigabytes:.0f} GB: choose a smaller "
            "batch_size, finetune=lora, a smaller model or model.device=cpu."
        ) from error
    except (SafetensorError, RuntimeError) as error:  # both wrap the system's error
        reason = str(error).splitlines()[0]
        if not isinstance(error, SafetensorError) and "PytorchStreamWriter" not in reason:
            raise
        raise SettingError(
            f"finetune={spec.kind}: no checkpoint can be written to {folder} ({reason[:100]}); "
            "make room there, or set SADI_BENCH_CACHE elsewhere."
        ) from error
