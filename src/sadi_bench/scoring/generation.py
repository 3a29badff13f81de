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
    budget = token_budget or CACHED_TOKENS.get(lm.device.type, 16384)
    left = sorted(range(len(requests)), key=lambda i: -len(requests[i].prompt))
    todo = [(i, list(cells)) for i in left]
    found: list[dict[int, Generated]] = [{} for _ in requests]

    def take() -> list[tuple[int, list[int]]]:
        if not todo:
            return []
        first, cells_left = requests[todo[0][0]], todo[0][1]
        shared = stand_side_by_side(lm, intervention, first, cells_left)
        return _first_pass(requests, todo, budget, shared)

    def run(batch: list[tuple[int, list[int]]]) -> list[dict[int, Generated]]:
        return write_batch(lm, [(requests[i], some) for i, some in batch], intervention)

    def shrink(batch: list[tuple[int, list[int]]]) -> bool:
        nonlocal budget
        budget //= 2
        return sum(len(some) for _, some in batch) > 1

    bar = tqdm(total=len(todo), desc=f"writing in {len(cells)} cells", unit="doc", disable=None)
    with torch.inference_mode(), bar:
        for batch, texts in fitting_passes(lm, take, run, shrink):
            for (i, _), written in zip(batch, texts, strict=True):
                found[i].update(written)
            rest = todo[len(batch) - 1][1][len(batch[-1][1]) :]
            bar.update(len(batch) - bool(rest))
            todo = [(batch[-1][0], rest)] * bool(rest) + todo[len(batch) :]
    return found


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
    todo: list[tuple[int, list[int]]],
    budget: int,
    shared: bool,
) -> list[tuple[int, list[int]]]:
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
