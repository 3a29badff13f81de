"""A model fine-tuned on right answers: trained once, then found again by what decided it."""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sadi_bench.aside import install, making
from sadi_bench.disk import cache_folder
from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.loading import Models, quiet_transformers, resolved
from sadi_bench.models.spec import FinetuneSpec, ModelSpec
from sadi_bench.sealed import broken

log = logging.getLogger(__name__)
Example = tuple[Sequence[int], Sequence[int]]
"""The tokens of a prompt and of its right answer, as they are scored."""
FACTS = "finetune.json"
# Copies of the weights on disk: a Trainer checkpoint holds weights and AdamW's two moments, and
# the new one is written before the old one leaves.
COPIES = {"sft": 6, "lora": 2}
LIBRARIES = ("torch", "transformers", "accelerate", "peft")


def finetuned(
    model: ModelSpec,
    spec: FinetuneSpec,
    examples: Sequence[Example],
    seed: int,
    models: Models,
) -> LanguageModel:
    """Load `model` (resolved) as fine-tuned on examples; train it if no checkpoint is kept.

    The base model leaves memory first, whoever still holds it. In a sweep it is therefore loaded
    anew for each run: once to tokenise, and its checkpoint after it.
    """
    base = models.load(model)
    if spec.kind == "none":
        return base
    if not examples:
        raise SettingError(
            f"finetune={spec.kind}: there is no example to train on; choose task.n_pairs=1 or more."
        )
    _check_device(model, spec)
    autocast = _autocast(model)
    key = checkpoint_key(base.fingerprint, spec, examples, seed, autocast)
    folder = cache_folder() / "finetuned" / key
    reused = _kept(folder) or not _trained_alone(
        folder, model, spec, examples, seed, autocast, models
    )
    if reused:
        log.info("%s: %s checkpoint %s is there already and used again", model.name, spec.kind, key)
    models.forget(base)
    there = replace(model, pretrained=str(folder), package=None, tokenizer=None, revision="main")
    tuned = models.load(there)
    facts = json.loads((folder / FACTS).read_text()) | {"checkpoint": key, "reused": reused}
    notes = (*tuned.notes, _note(facts))
    return replace(tuned, tokenizer=base.tokenizer, notes=notes, finetune=facts)


def checkpoint_folder(key: str) -> Path | None:
    """Return where a finished checkpoint is kept, by its key; None where it is not."""
    folder = cache_folder() / "finetuned" / key
    return folder if _kept(folder) else None


def checkpoint_key(
    fingerprint: str, spec: FinetuneSpec, examples: Sequence[Example], seed: int, autocast: bool
) -> str:
    """Hash what decides the trained weights, the versions of the libraries among it."""
    versions = {name: version(name) for name in LIBRARIES} | {"own": version("sadi-bench")}
    tokens = [(list(map(int, prompt)), list(map(int, answer))) for prompt, answer in examples]
    parts = [fingerprint, spec.settings(), tokens, seed, autocast, versions]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _trained_alone(
    folder: Path,
    model: ModelSpec,
    spec: FinetuneSpec,
    examples: Sequence[Example],
    seed: int,
    autocast: bool,
    models: Models,
) -> bool:
    """Train into `folder` unless another process does so meanwhile; say whether it was us."""
    with making(folder, resumable=True) as partial:
        reason = broken(folder, _made_from(folder))
        if reason is None:
            return False
        if folder.exists():
            log.warning("%s; it is made again", reason)
        started = time.perf_counter()
        losses = _train(partial, model, spec, examples, seed, autocast, models)
        facts: dict[str, Any] = {
            **spec.settings(),
            "examples": len(examples),
            "seed": seed,
            "train_loss": losses,
            "seconds": round(time.perf_counter() - started, 3),
        }
        done = partial / "model"
        (done / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
        install(done, folder, _made_from(folder))
        shutil.rmtree(partial, ignore_errors=True)  # optimiser states, several times the weights
    return True


def _train(
    partial: Path,
    model: ModelSpec,
    spec: FinetuneSpec,
    examples: Sequence[Example],
    seed: int,
    autocast: bool,
    models: Models,
) -> list[float]:
    """Train float32 weights, save them to `partial`/model and return every epoch's mean loss.

    In bfloat16 a step of 2e-6 would be rounded away. Evaluation loads the run's own dtype.
    """
    from sadi_bench.models.training import train  # seconds of imports that other runs do not need

    if model.dtype != "float32":
        models.forget(models.load(model))
    master = models.load(replace(model, dtype="float32"))
    try:
        _check_room(master, spec, partial)
        network, losses = train(
            master.network,
            examples,
            spec,
            name=str(model.name),
            seed=seed,
            folder=partial / "trainer",
            device=str(model.device),
            autocast=autocast,
        )
        _save(network, master.tokenizer, partial / "model", spec)
    finally:
        models.forget(master)  # its weights are no longer those it was loaded with
    return losses


def _save(network: Any, tokenizer: Any, folder: Path, spec: FinetuneSpec) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what a killed process had begun to write
    try:
        with quiet_transformers():
            network.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except SafetensorError as error:  # it wraps the system's error
        raise SettingError(
            f"finetune={spec.kind}: the checkpoint cannot be written to {folder.parent} "
            f"({str(error)[:100]}); make room there, or set SADI_BENCH_CACHE elsewhere. What was "
            "trained is kept, and the next run goes on with it."
        ) from error


def _kept(folder: Path) -> bool:
    return broken(folder, _made_from(folder)) is None


def _made_from(folder: Path) -> dict[str, str]:
    return {"checkpoint": folder.name}


def _autocast(model: ModelSpec) -> bool:
    """Multiply in bfloat16 where the run does and the hardware is made for it."""
    return "bfloat16" == model.dtype == resolved(replace(model, dtype="auto")).dtype


def _check_device(model: ModelSpec, spec: FinetuneSpec) -> None:
    index = str(model.device).partition(":")[2]
    if index not in ("", "0"):
        raise SettingError(
            f"model.device={model.device}: finetune={spec.kind} trains on the first card; set "
            f"CUDA_VISIBLE_DEVICES={index} and model.device=cuda."
        )


def _check_room(lm: LanguageModel, spec: FinetuneSpec, partial: Path) -> None:
    weights = sum(parameter.numel() * 4 for parameter in lm.network.parameters())
    held = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
    needed, free = COPIES[spec.kind] * weights - held, shutil.disk_usage(partial).free
    if needed > free:
        raise SettingError(
            f"finetune={spec.kind}: {partial.parent} has {free / 1e9:.1f} GB of room and the "
            f"checkpoints need {needed / 1e9:.1f} GB; make room, or set SADI_BENCH_CACHE elsewhere."
        )


def _note(facts: dict[str, Any]) -> str:
    losses = facts["train_loss"]
    return (
        f"fine-tuned ({facts['kind']}) on {facts['examples']} right answers, "
        f"{facts['epochs']} epochs: loss {losses[0]:.4f} to {losses[-1]:.4f}"
    )
