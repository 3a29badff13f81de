"""Steer any transformers code: what runs a network inside the block runs the steered network.

    with applied(network, intervention, cell=3):
        network.generate(**inputs)

Where a prompt ends is found as `passes` tells. What an intervention needs of the unsteered
model (it overwrites, or reads the prompts) is read in a pass of its own, just before.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sadi_bench.errors import SettingError
from sadi_bench.models.families import family_of
from sadi_bench.models.hooks import Edit, edited
from sadi_bench.models.shapes import Bool, Int
from sadi_bench.steering.intervention import AnswerBias, Intervention, Reach, ReadsPrompts
from sadi_bench.steering.passes import Pass, Prompts, taken, unseen_tokens
from sadi_bench.steering.watch import Watch, watched


@contextmanager
def applied(
    network: PreTrainedModel,
    intervention: Intervention,
    cell: int,
    prompt_tokens: Sequence[int] | None = None,
) -> Iterator[None]:
    """Steer the network in one cell while in the context, whichever thread runs it.

    Steered is each row's last prompt token, or what the intervention's reach says. A pass without
    a past holds the prompts, and inside `generate` they are its input; the whole of it, or each
    row's first `prompt_tokens` tokens, padding not counted. Passes with a past hold later tokens.
    Numbers that overflow are not caught. Blocks may be nested: each edits what the outer one left.

    Raises:
        SettingError: the cell does not exist, the network is compiled, or a call inside the block
            does not tell where its prompts end or what the unsteered model read.
    """
    _check(network, intervention, cell)
    block = _Block(intervention, cell, prompt_tokens)
    if cell == 0:
        yield
        return
    with watched(network, block) as watch:

        def edit(layer: int, raw: Tensor) -> Tensor | None:
            return watch.edit(block, layer, raw)

        with edited(network, family_of(network.config), intervention.site, edit):
            yield


def _check(network: PreTrainedModel, intervention: Intervention, cell: int) -> None:
    if isinstance(intervention, AnswerBias):
        raise SettingError(
            f"intervention={type(intervention).__name__}: it adds constants to answers' "
            "log-probabilities and edits no activation; score answers with it instead."
        )
    if not 0 <= cell < len(intervention.cells):
        raise SettingError(
            f"cell={cell}: the intervention has cells 0 to {len(intervention.cells) - 1}; choose "
            "one of them."
        )
    compiled = (module._compiled_call_impl is not None for module in network.modules())
    if hasattr(network, "_orig_mod") or any(compiled):
        raise SettingError(
            "network: it was compiled, and compiled code passes hooks by; give the network as it "
            "was before torch.compile."
        )


@dataclass(frozen=True)
class _Nodes:
    """Name columns of a pass, counted from its start, row by row; what is not `steered` stays."""

    columns: Int[Tensor, "row node"]
    steered: Bool[Tensor, "row node"]


@dataclass(frozen=True, eq=False)
class _Block:
    """Plan the edits of one open block."""

    intervention: Intervention
    cell: int
    prompt_tokens: Sequence[int] | None

    def plan(self, watch: Watch, passing: Pass) -> Edit | None:
        """Bind the intervention to where this pass is steered; None if it is nowhere."""
        nodes = self._nodes(passing)
        if nodes is None:
            return None
        if self.intervention.overwrites and not nodes.steered.any():
            return None  # spares the unsteered pass, as in a long prompt's first chunks
        bound = self._bound(watch, passing)
        clean = self._clean(watch, passing, nodes) if bound.overwrites else None
        rows, cells = len(passing.real), torch.tensor([self.cell])
        first = bound.first_layer(self.cell)

        def edit(layer: int, raw: Tensor) -> Tensor | None:
            if layer < first:
                return None
            values = raw.reshape(rows, -1, raw.shape[-1])
            columns = nodes.columns.to(raw.device)[..., None].expand(-1, -1, raw.shape[-1])
            here = values.gather(1, columns)
            old = here if clean is None else clean[layer]
            new = bound.edit(layer, old[:, None], cells)
            if new is None and clean is None:
                return None
            new = old if new is None else new[:, 0]
            new = torch.where(nodes.steered.to(raw.device)[..., None], new, here)
            return values.scatter(1, columns, new).reshape(raw.shape)

        return edit

    def _nodes(self, passing: Pass) -> _Nodes | None:
        """Find what the reach says; a row without a token in this pass has nothing steered."""
        real = passing.real[:, passing.start :]
        (rows, length), reach = real.shape, self.intervention.reach
        columns = torch.arange(length, device=real.device).expand(rows, -1)
        if reach == Reach.all_tokens or not passing.holds_prompts:
            return None if reach == Reach.last_prompt else _Nodes(columns, real)
        assert passing.prompts is not None  # what `holds_prompts` says
        ends = self._ends(passing.prompts).repeat_interleave(passing.copies, dim=0)
        ends = ends[:, None] - passing.start
        if reach == Reach.from_last_prompt:
            return _Nodes(columns, real & (columns >= ends))
        return _Nodes(ends.clamp(0, length - 1), (ends >= 0) & (ends < length))

    def _ends(self, prompts: Prompts) -> Int[Tensor, " prompt"]:
        """Return the column of every prompt's last token, -1 where it has none."""
        columns = torch.arange(prompts.real.shape[1], device=prompts.real.device)
        return torch.where(self._shown(prompts), columns, -1).amax(dim=1)

    def _shown(self, prompts: Prompts) -> Bool[Tensor, "prompt column"]:
        """Say which columns hold tokens of the prompts."""
        if self.prompt_tokens is None:
            return prompts.real
        counts, given = prompts.real.sum(dim=1).tolist(), list(self.prompt_tokens)
        if len(given) != len(counts):
            raise SettingError(
                f"prompt_tokens={given}: the input has {len(counts)} rows; give one number a row."
            )
        for row, (count, most) in enumerate(zip(given, counts, strict=True)):
            if not 1 <= count <= most:
                raise SettingError(
                    f"prompt_tokens={given}: row {row} has {most} tokens; choose 1 to {most}."
                )
        limits = torch.tensor(given, device=prompts.real.device)[:, None]
        return prompts.real & (prompts.real.cumsum(dim=1) <= limits)

    def _bound(self, watch: Watch, passing: Pass) -> Intervention:
        """Let an intervention that asks read the prompts, once."""
        if not isinstance(self.intervention, ReadsPrompts):
            return self.intervention
        prompts, steering = passing.prompts, self.intervention
        readings: dict[int, Tensor] = {}
        if prompts is None or prompts.tokens is None:
            raise unseen_tokens()
        if self not in prompts.kept:

            def read(layer: int, values: Tensor, real: Tensor) -> None:
                found = steering.read(layer, values, real)
                readings[layer] = found.repeat_interleave(passing.copies, dim=0)[:, None]

            watch.read_unsteered(self, prompts.tokens, self._shown(prompts), read)
            prompts.kept[self] = steering.bound(readings)
        return prompts.kept[self]

    def _clean(self, watch: Watch, passing: Pass, nodes: _Nodes) -> dict[int, Tensor]:
        """Return the unsteered model's values [row node width] in every layer."""
        tokens, real = watch.tokens_of(passing), passing.real
        if self.intervention.reach == Reach.last_prompt:  # what follows the prompts is not needed
            width = passing.prompt_columns
            tokens, real = tokens[:, :width], real[:, :width]
        places = real.cumsum(dim=1).gather(1, passing.start + nodes.columns) - 1
        places, found = places.clamp(min=0), {}

        def read(layer: int, values: Tensor, _real: Tensor) -> None:
            found[layer] = taken(values, places.to(values.device))

        watch.read_unsteered(self, tokens, real, read)
        return found
