"""Let the model write behind every prompt in every cell, greedily, pass by pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from sadi_bench.batches.job import Arrays, Job, halved, job_key, times_halved
from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.scoring.writing import (
    Generated,
    GenerationRequest,
    stand_side_by_side,
    write_batch,
)
from sadi_bench.steering.artefact import content_digest
from sadi_bench.steering.intervention import Intervention

CACHED_TOKENS = {"cpu": 16384, "cuda": 65536, "mps": 16384}
"""Tokens whose keys and values are held at once, all rows together."""

MEASURED = "measured."
UTF8 = "utf-8", "surrogatepass"

Batch = Sequence[tuple[int, Sequence[int]]]
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
    follows, or all tokens. Where memory runs out a batch is cut in two.
    """
    job = text_job(lm, requests, intervention, cells, token_budget)
    found: list[dict[int, Generated]] = [{} for _ in requests]
    for batch, arrays in zip(job.batches, lm.executor.results(job, lm), strict=True):
        rows = _texts(arrays)
        for i, some in batch:
            found[i].update((cell, next(rows)) for cell in some)
    return found


def text_job(
    lm: LanguageModel,
    requests: Sequence[GenerationRequest],
    intervention: Intervention,
    cells: Sequence[int],
    token_budget: int | None = None,
) -> "TextJob":
    """Plan the batches: prompts of like length together, the longest first.

    Raises:
        SettingError: a prompt with its text does not fit into the context.
    """
    for request in requests:
        _check_room(lm, request)
    budget = token_budget or CACHED_TOKENS.get(lm.planned_for, 16384)
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i].prompt))
    todo, batches = [(i, list(cells)) for i in order], []
    while todo:
        shared = stand_side_by_side(lm, intervention, requests[todo[0][0]], todo[0][1])
        batch = _first_pass(requests, todo, budget, shared)
        batches.append(tuple((i, tuple(some)) for i, some in batch))
        last, some = batch[-1]
        rest = todo[len(batch) - 1][1][len(some) :]
        todo = [(last, rest)] * bool(rest) + todo[len(batch) :]
    return TextJob(tuple(batches), tuple(requests), intervention)


@dataclass(frozen=True)
class TextJob(Job):
    """Write batches of texts: prompts by their numbers, each in some cells."""

    batches: Sequence[Batch]
    requests: Sequence[GenerationRequest]
    intervention: Intervention
    unit: str = "text"

    @property
    def name(self) -> str:
        """What the bar calls it."""
        cells = {cell for batch in self.batches for _, some in batch for cell in some}
        return f"writing in {len(cells)} cells"

    def run(self, lm: LanguageModel, batch: Batch, halvings: int) -> Arrays:
        """Write a batch; halved are its prompts, then the cells that write at once."""
        rest = max(0, halvings - times_halved(len(batch)))
        rows: list[Generated] = []
        for piece in halved(batch, halvings):
            asked = [(self.requests[i], list(some)) for i, some in piece]
            if rest:
                asked = [(asked[0][0], list(some)) for some in halved(asked[0][1], rest)]
            parts = [[each] for each in asked] if rest else [asked]
            for part in parts:
                texts = write_batch(lm, part, self.intervention)
                for (_, some), found in zip(part, texts, strict=True):
                    rows += [found[cell] for cell in some]
        return _arrays(rows)

    def most_halvings(self, batch: Batch) -> int:
        """Go down to one prompt, then to one of its cells."""
        return times_halved(len(batch)) + times_halved(max(len(some) for _, some in batch))

    def size(self, batch: Batch) -> int:
        """Count texts."""
        return sum(len(some) for _, some in batch)

    def key(self, lm: LanguageModel) -> str:
        """Hash the intervention, what is asked and the plan."""
        learnt = content_digest(self.intervention)
        return job_key(lm, "writing", learnt, self.requests, self.batches)


def _arrays(rows: Sequence[Generated]) -> Arrays:
    """Put texts and their tokens end to end; `*_ends` say where each begins and stops."""
    texts = [row.text.encode(*UTF8) for row in rows]
    found = {
        "text": np.frombuffer(b"".join(texts), dtype=np.uint8),
        "text_ends": np.cumsum([0, *map(len, texts)]),
        "tokens": np.array([token for row in rows for token in row.tokens], dtype=np.int64),
        "token_ends": np.cumsum([0, *(len(row.tokens) for row in rows)]),
        "finite": np.array([row.finite for row in rows]),
    }
    for name in rows[0].measured:
        found[MEASURED + name] = np.array([row.measured[name] for row in rows], dtype=np.float64)
    return found


def _texts(arrays: Arrays) -> Iterator[Generated]:
    """Take texts apart again, in their order."""
    measured = sorted(name for name in arrays if name.startswith(MEASURED))
    plain = Generated("", ())
    ends = pairwise(arrays["text_ends"]), pairwise(arrays["token_ends"])
    for row, (text, tokens) in enumerate(zip(*ends, strict=True)):
        yield replace(
            plain,
            text=arrays["text"][slice(*text)].tobytes().decode(*UTF8),
            tokens=tuple(arrays["tokens"][slice(*tokens)].tolist()),
            finite=bool(arrays["finite"][row]),
            measured={each.removeprefix(MEASURED): float(arrays[each][row]) for each in measured},
        )


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
