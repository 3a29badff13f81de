"""Write one batch of texts: a row a prompt and cell, all growing by a token a step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sadi_bench.models.families import Site
from sadi_bench.models.hooks import edited
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.logits import best_tokens
from sadi_bench.models.packing import Prefix, run_prefix
from sadi_bench.models.rows import Rows
from sadi_bench.scoring.prompts import bound_to, measured_of, run_prompts
from sadi_bench.steering.intervention import Intervention, Reach

UNSEEN_KEYS = 1024
"""Keys of other cells that a row may pass over, masked, before a sequence of its own is cheaper."""

LEAVE_AT = 0.75
"""Rows are gathered anew when no more than this share of them still writes."""


@dataclass(frozen=True)
class GenerationRequest:
    """Ask for a text behind a prompt: at most `max_new_tokens`, up to the first text of `until`."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    until: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generated:
    """Hold what one cell wrote. Where it left the number range: nothing, and finite is False.

    `tokens` are all that were chosen but an end-of-text mark; `text` ends before the first text
    of `until`, which the tokens may hold. `measured` is what the intervention did to the prompt in
    this cell, by name.
    """

    text: str
    tokens: tuple[int, ...]
    finite: bool = True
    measured: Mapping[str, float] = field(default_factory=dict)


@dataclass
class _Row:
    """Follow one text in the making; `clean` is the row whose values stand for the unsteered."""

    place: int
    request: GenerationRequest
    cell: int
    clean: "_Row | None" = field(default=None, repr=False)
    writes: bool = True
    tokens: list[int] = field(default_factory=list)
    finite: bool = True

    def feeds(self) -> bool:
        """Say whether another row needs this one, though it writes nothing itself."""
        return not self.writes and self.clean is not None and self.clean.writes


def write_batch(
    lm: LanguageModel,
    batch: list[tuple[GenerationRequest, list[int]]],
    intervention: Intervention,
) -> list[dict[int, Generated]]:
    """Write behind each prompt in its cells, the longest prompt first; results in their order."""
    every_step = intervention.reach != Reach.last_prompt
    rows = [
        _Row(place, request, cell) for place, (request, cells) in enumerate(batch) for cell in cells
    ]
    written = list(rows)
    if intervention.overwrites:
        rows += _clean_rows(rows, every_step)
    rows.sort(key=lambda row: row.place)
    owners = torch.tensor([row.place for row in rows])
    prefix, readings = run_prompts(lm, [request.prompt for request, _ in batch], intervention)
    if intervention.reach == Reach.all_tokens:
        prefix = _steered_prefix(lm, bound_to(readings, intervention, owners), rows)
        owners = torch.arange(len(rows))
    room = max(request.max_new_tokens for request, _ in batch)
    shared = stand_side_by_side(lm, intervention, *batch[0])
    running = Rows(lm, prefix, owners, room, shared)
    _write(lm, intervention, readings, rows, running)
    texts: list[dict[int, Generated]] = [{} for _ in batch]
    measured = measured_of(readings, intervention, len(batch))
    for row in written:
        did = {name: float(values[row.cell]) for name, values in measured[row.place].items()}
        texts[row.place][row.cell] = _result(lm, row, did)
    return texts


def _write(
    lm: LanguageModel,
    intervention: Intervention,
    readings: Mapping[int, Tensor],
    rows: list[_Row],
    running: Rows,
) -> None:
    """Let all rows grow by a token a step until each has written its text."""
    every_step, ends = intervention.reach != Reach.last_prompt, _end_tokens(lm)
    tokens, steered = [row.request.prompt[-1] for row in rows], True
    while any(row.writes for row in rows):
        with _steering(lm, intervention, readings, rows, running) if steered else nullcontext():
            hidden = running.step(tokens)
        chosen = best_tokens(lm, hidden)
        for row, token in zip(rows, chosen, strict=True):
            if row.writes:
                _advance(lm, row, token, ends)
        steered = every_step
        tokens = [_next_token(row, token) for row, token in zip(rows, chosen, strict=True)]
        needed = [i for i, row in enumerate(rows) if row.writes or (every_step and row.feeds())]
        if len(needed) <= LEAVE_AT * len(rows):
            rows, tokens = [rows[i] for i in needed], [tokens[i] for i in needed]
            if rows:
                running.keep(needed)


def stand_side_by_side(
    lm: LanguageModel, intervention: Intervention, request: GenerationRequest, cells: Sequence[int]
) -> bool:
    """Say whether a prompt's cells are to share its prefix, in one sequence.

    Not where they could not, nor where what they write, which each sees but its own part of, would
    soon be longer than the prefix is dear.
    """
    unseen = len(cells) * request.max_new_tokens / 2
    worth = unseen <= UNSEEN_KEYS + 2 * len(request.prompt)
    return lm.packs and intervention.reach != Reach.all_tokens and worth


def _clean_rows(rows: list[_Row], every_step: bool) -> list[_Row]:
    """Tell every steered row which one has the unsteered model's values; return those to be added.

    At the prompt's last token the prompt's cell 0 serves all its cells; later each cell needs a
    twin that reads what it writes, for the cells' texts part.
    """
    unsteered = {} if every_step else {row.place: row for row in rows if row.cell == 0}
    new: list[_Row] = []
    for row in rows:
        if row.cell == 0:
            continue
        if row.place not in unsteered or every_step:
            unsteered[row.place] = _Row(row.place, row.request, 0, row, writes=False)
            new.append(unsteered[row.place])
        row.clean = unsteered[row.place]
    return new


def _next_token(row: _Row, chosen: int | None) -> int:
    """A clean row reads what its steered twin wrote."""
    token = row.clean.tokens[-1] if row.feeds() and row.clean.tokens else chosen
    return 0 if token is None else token


def _advance(lm: LanguageModel, row: _Row, token: int | None, ends: set[int]) -> None:
    row.finite &= token is not None
    if not row.finite:
        row.writes = False
        return
    row.writes = token not in ends
    if row.writes:
        row.tokens.append(token)
        full = len(row.tokens) >= row.request.max_new_tokens
        row.writes = not (full or _stopped(lm, row.tokens, row.request.until))


def _end_tokens(lm: LanguageModel) -> set[int]:
    """The tokens at which transformers' own `generate` ends: the model's, and the tokenizer's."""
    config = getattr(lm.network, "generation_config", None)
    ends = getattr(config, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends]
    return {token for token in (*ends, lm.tokenizer.eos_token_id) if token is not None}


def _stopped(lm: LanguageModel, tokens: list[int], until: tuple[str, ...]) -> bool:
    """Find a text of `until` among the last tokens; each token is at least one byte."""
    if not any(until):
        return False
    longest = max(len(stop.encode()) for stop in until)
    text = lm.tokenizer.decode(tokens[-(longest + 4) :], skip_special_tokens=True)
    return any(stop in text for stop in until if stop)


def _result(lm: LanguageModel, row: _Row, measured: Mapping[str, float]) -> Generated:
    if not row.finite:
        return Generated("", (), finite=False, measured=measured)
    text = lm.tokenizer.decode(row.tokens, skip_special_tokens=True)
    for stop in row.request.until:
        if stop:
            text = text.split(stop)[0]
    return Generated(text, tuple(row.tokens), measured=measured)


def _steered_prefix(lm: LanguageModel, intervention: Intervention, rows: list[_Row]) -> Prefix:
    """Run every row's own prefix, for it depends on the cell."""
    cells = torch.tensor([row.cell for row in rows])

    def edit(layer: int, raw: Tensor) -> Tensor | None:
        new = intervention.edit(layer, raw.reshape(1, len(rows), -1, raw.shape[-1]), cells)
        return None if new is None else new.reshape(raw.shape)

    with edited(lm.network, lm.family, intervention.site, edit):
        return run_prefix(lm, [row.request.prompt for row in rows])


def _clean_places(rows: list[_Row]) -> Tensor:
    """Say of every row which one has the unsteered model's values: itself where it needs none."""
    where = {id(row): i for i, row in enumerate(rows)}
    return torch.tensor(
        [where[id(row.clean)] if row.writes and row.clean else i for i, row in enumerate(rows)]
    )


@contextmanager
def _steering(
    lm: LanguageModel,
    intervention: Intervention,
    readings: Mapping[int, Tensor],
    rows: list[_Row],
    running: Rows,
) -> Iterator[None]:
    """Edit the rows, each as a copy of one node in a batch of one.

    What leaves a block is finite: rows share a sequence, and a mask's 0 · inf is no number. A row
    that left the number range is marked.
    """
    intervention = bound_to(readings, intervention, torch.tensor([row.place for row in rows]))
    cells = torch.tensor([row.cell for row in rows])
    clean = _clean_places(rows)
    lost = torch.zeros(len(rows), dtype=torch.bool)

    def edit(layer: int, raw: Tensor) -> Tensor | None:
        values = running.values(raw)
        old = values[clean.to(raw.device)] if intervention.overwrites else values
        new = intervention.edit(layer, old[None, :, None], cells)
        if new is not None:
            return running.put_back(new[0, :, 0], raw)
        return running.put_back(old, raw) if intervention.overwrites else None

    def guard(_layer: int, raw: Tensor) -> Tensor | None:
        values = running.values(raw)
        nonlocal lost
        broken = ~values.sum(dim=-1, dtype=torch.float32).isfinite()
        if raw.device.type == "cpu" and not broken.any():
            return None  # elsewhere asking would wait for the device, block by block
        lost = lost.to(raw.device) | broken
        return running.put_back(torch.where(broken[:, None], 0, values), raw)

    with ExitStack() as stack:
        for site, change in ((intervention.site, edit), (Site.residual, guard)):
            stack.enter_context(edited(lm.network, lm.family, site, change))
        yield
    for row, broken in zip(rows, lost.tolist(), strict=True):
        row.finite &= not broken
