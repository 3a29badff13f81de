"""A job: what is done to every batch, the same in whichever process does it.

plan    batches = [[0, 3], [1], [2, 4]]   before the first pass, from requests and budget alone
run     one batch → named arrays          here or in a worker; halved where memory runs out
keep    named arrays → one shard          see shards.py
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sadi_bench.errors import SettingError
from sadi_bench.provenance import library_versions, source_digest

if TYPE_CHECKING:
    from sadi_bench.models.language_model import LanguageModel

Arrays = dict[str, np.ndarray]
"""What a batch gives, by name: it goes into a shard, or from a worker to the process that leads."""

CODE = "models", "steering", "scoring", "batches"


class Job(ABC):
    """Hold planned batches and what is done to each.

    name: what a progress bar calls it. unit: what a batch is made of. batches: lists of items.
    It is sent to workers whole, so it holds no model.
    """

    name: str
    unit: str
    batches: Sequence[Sequence[Any]]

    @abstractmethod
    def run(self, lm: "LanguageModel", batch: Sequence[Any], halvings: int) -> Arrays:
        """Do one batch, in pieces that were halved so many times."""

    @abstractmethod
    def most_halvings(self, batch: Sequence[Any]) -> int:
        """Return after how many halvings the pieces are as small as can be."""

    @abstractmethod
    def key(self, lm: "LanguageModel") -> str:
        """Hash all that decides the results, see `job_key`."""

    def size(self, batch: Sequence[Any]) -> int:
        """Count a batch in the bar's unit."""
        return len(batch)


def job_key(lm: "LanguageModel", *inputs: object) -> str:
    """Hash weights, types, device, libraries, code and inputs: 16 hex digits.

    Empty for a network that was made in memory, whose weights nobody named: nothing is kept.
    """
    if not lm.fingerprint:
        return ""
    made_by = source_digest(*CODE), library_versions()
    parts = (lm.fingerprint, str(lm.dtype), lm.planned_for, *made_by, *inputs)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def fitted(
    job: Job, lm: "LanguageModel", batch: Sequence[Any], halvings: int
) -> tuple[Arrays, int]:
    """Run a batch, halved once more each time memory runs out; also return how often it was.

    `halvings` is what the batch before needed: this one is not tried larger.

    Raises:
        SettingError: the smallest piece does not fit.
    """
    most = job.most_halvings(batch)
    halvings = min(halvings, most)
    while True:
        try:
            with torch.inference_mode():
                return job.run(lm, batch, halvings), halvings
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if halvings == most:
                raise memory_error(lm.name, error) from error
        halvings += 1  # not inside `except`: the error holds the tensors of the pass


def out_of_memory(error: RuntimeError) -> bool:
    """Say whether a pass failed for want of memory, so that a smaller one may do."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def memory_error(model: str, error: RuntimeError) -> SettingError:
    """Say what to do when the smallest pass does not fit."""
    return SettingError(
        f"model={model}: out of memory with one prompt and one cell ({str(error)[:80]}); "
        "choose a smaller model or model.dtype=bfloat16."
    )


def halved(items: Sequence[Any], halvings: int) -> list[Sequence[Any]]:
    """Cut a sequence into pieces of ceil(length / 2^halvings), at least one item each."""
    size = max(1, -(-len(items) // (1 << halvings)))
    return [items[i : i + size] for i in range(0, len(items), size)]


def times_halved(length: int) -> int:
    """Return how many halvings bring `length` items down to one."""
    return max(length - 1, 0).bit_length()
