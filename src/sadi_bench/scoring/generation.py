"""Let the model write behind every prompt in every cell, greedily, pass by pass."""

from collections.abc import Sequence

import torch
from tqdm import tqdm

from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.memory import fitting_passes
from sadi_bench.scoring.writing import (
    Generated,
    GenerationRequest,
    stand_side_by_side,
    write_batch,
)
from sadi_bench.steering.intervention import Intervention

CACHED_TOKENS = {"cpu": 16384, "cuda": 65536, "mps": 16384}
"""Tokens whose keys and values are held at once, all rows together."""


Batch = list[tuple[int, list[int]]]
"""Numbers of prompts, each with the cells that write behind it."""


def generate(
    lm: LanguageModel,
    requests: Sequence[GenerationRequest],
    intervention: Intervention,
    cells: Sequence[int],
    token_budget: int | None = None,
) -> list[dict[int, Generated]]:
    """Write behind every prompt in each of `cells`; results come in the order of the requests.

    Steered is the prompt's last token alone, or as the intervention's reach says also what
    follows, or all tokens.
    Where memory runs out a pass is cut in two and the budget halved; nothing written is lost.
    """
    for request in requests:
        _check_room(lm, request)
    plan = _Plan(lm, requests, intervention, cells, token_budget)

    def run(batch: Batch) -> list[dict[int, Generated]]:
        return write_batch(lm, [(requests[i], some) for i, some in batch], intervention)

    found: list[dict[int, Generated]] = [{} for _ in requests]
    bar = tqdm(total=len(requests), desc=f"writing in {len(cells)} cells", unit="doc", disable=None)
    with torch.inference_mode(), bar:
        for batch, texts in fitting_passes(lm, plan.take, run, plan.shrink):
            for (i, _), written in zip(batch, texts, strict=True):
                found[i].update(written)
            bar.update(plan.done(batch))
    return found


class _Plan:
    """Say which prompts are written behind next, longest first, and in which of their cells."""

    def __init__(
        self,
        lm: LanguageModel,
        requests: Sequence[GenerationRequest],
        intervention: Intervention,
        cells: Sequence[int],
        token_budget: int | None,
    ) -> None:
        self.lm, self.requests, self.intervention = lm, requests, intervention
        self.budget = token_budget or CACHED_TOKENS.get(lm.device.type, 16384)
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i].prompt))
        self.todo = [(i, list(cells)) for i in order]

    def take(self) -> Batch:
        """Return the next prompts with some of their cells; none where all is written."""
        if not self.todo:
            return []
        first, cells = self.requests[self.todo[0][0]], self.todo[0][1]
        shared = stand_side_by_side(self.lm, self.intervention, first, cells)
        return _first_pass(self.requests, self.todo, self.budget, shared)

    def shrink(self, batch: Batch) -> bool:
        """Halve the budget; False where one cell of one prompt did not fit."""
        self.budget //= 2
        return sum(len(some) for _, some in batch) > 1

    def done(self, batch: Batch) -> int:
        """Strike a batch off; return how many prompts are through with all their cells."""
        last, some = batch[-1]
        rest = self.todo[len(batch) - 1][1][len(some) :]
        self.todo = [(last, rest)] * bool(rest) + self.todo[len(batch) :]
        return len(batch) - bool(rest)


def _check_room(lm: LanguageModel, request: GenerationRequest) -> None:
    needed = len(request.prompt) + request.max_new_tokens
    if needed > lm.max_length:
        raise SettingError(
            f"task.generation_kwargs.max_gen_toks={request.max_new_tokens}: with a prompt of "
            f"{len(request.prompt):,} tokens that is {needed:,}, the context of {lm.name} "
            f"{lm.max_length:,}; choose at most "
            f"{max(lm.max_length - len(request.prompt), 0):,}, or fewer task.fewshot."
        )


def _first_pass(
    requests: Sequence[GenerationRequest],
    todo: Batch,
    budget: int,
    shared: bool,
) -> Batch:
    """Take prompts from the front with as many of their cells as fit, at least one.

    All are padded to the longest; a prompt's cells share its prefix, or each repeats it.
    """
    batch, longest, room, widest = [], 0, 0, 0
    for i, cells in todo:
        longest = max(longest, len(requests[i].prompt))
        room = max(room, requests[i].max_new_tokens)
        widest = max(widest, len(cells))
        left = budget // (len(batch) + 1)
        fit = (left - longest) // room if shared else left // (longest + room)
        if fit < widest:
            return batch or [(i, cells[: max(fit, 1)])]
        batch.append((i, cells))
    return batch
