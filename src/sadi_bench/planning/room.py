"""The memory and the disk that a run needs, and what of both is free here."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from sadi_bench.batches.job import Job
from sadi_bench.disk import cache_folder
from sadi_bench.models.finetune import COPIES
from sadi_bench.planning.network_size import NetworkSize
from sadi_bench.planning.plan_parts import Part
from sadi_bench.scoring.choices import ChoiceJob
from sadi_bench.scoring.generation import TextJob
from sadi_bench.settings import RunConfig
from sadi_bench.steering.activations import MOST_KEPT, PairJob

LIBRARIES = 600_000_000
"""Bytes that Python and its libraries take beside a model; measured on Linux without a GPU."""

TRAINED_BYTES = {"none": 0, "lora": 4, "sft": 16}
"""Of a weight in fine-tuning: itself, its gradient and two moments, float32."""


@dataclass(frozen=True)
class Room:
    """Hold bytes: `memory` of the model's device, of it `weights` and the widest `batch`.

    disk: the run's files and what the cache keeps. fetched: weights that are not here.
    """

    weights: int
    batch: int
    memory: int
    free_memory: int
    disk: int
    free_disk: int
    fetched: int


def room_of(config: RunConfig, size: NetworkSize, parts: Sequence[Part], *, here: bool) -> Room:
    """Add up what a run needs; `here`: no weights have to be fetched."""
    batch = max((part.left.held for part in parts), default=0)
    trained = size.parameters * TRAINED_BYTES[config.finetune.kind]
    disk = sum(_job_bytes(part.job, size) for part in parts)
    if config.finetune.kind != "none":
        disk += COPIES[config.finetune.kind] * 4 * size.parameters
    places = Path(config.runs_dir).expanduser(), cache_folder()
    return Room(
        weights=size.weights_bytes,
        batch=batch,
        memory=max(size.weights_bytes + batch, trained) + LIBRARIES,
        free_memory=free_memory(size.lm.spec.device),
        disk=disk,
        free_disk=min(map(_free_disk, places)),
        fetched=0 if here else 2 * size.parameters,  # most hub models are kept in 16 bits
    )


def free_memory(device: str) -> int:
    """Return the bytes that are free on a device."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _job_bytes(job: Job, size: NetworkSize) -> int:
    """Count a job's shards, and its rows of grid.parquet, docs.jsonl or generations.jsonl."""
    if isinstance(job, PairJob):
        values = 2 * len(job.pairs) * size.layers * size.attended * 4
        return min(values, MOST_KEPT)
    prompts = sum(8 * len(request.prompt) for request in job.requests)
    if isinstance(job, ChoiceJob):
        cells = len(job.intervention.cells)
        answers = sum(len(request.answers) for request in job.requests)
        tokens = sum(len(answer) for request in job.requests for answer in request.answers)
        return prompts + cells * (12 * answers + 4 * tokens + 10 * len(job.requests))
    if isinstance(job, TextJob):
        longest = max(request.max_new_tokens for request in job.requests)
        return prompts + 32 * longest * sum(map(job.size, job.batches))
    return 0


def _free_disk(folder: Path) -> int:
    """Return the room where a folder is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
