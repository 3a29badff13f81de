"""The plan of one run as text, at most 100 columns wide."""

import textwrap
from collections.abc import Iterator, Sequence

from sadi_bench.planning.calibrating import Speed
from sadi_bench.planning.cards import CARDS, SECONDS_A_BLOCK, USED_BANDWIDTH, USED_FLOPS
from sadi_bench.planning.plan_parts import PAIRS, Part
from sadi_bench.planning.run_plan import FINISHED, RunPlan
from sadi_bench.results.formatting import MAX_WIDTH, MISSING, aligned, shortened

ARITHMETIC = (
    f"assumed, not measured: {USED_FLOPS:.0%} of the peak, {USED_BANDWIDTH:.0%} of the bandwidth, "
    f"and at least {SECONDS_A_BLOCK * 1000:g} ms a block and pass"
)


def plan_text(plan: RunPlan) -> str:
    """Lay a plan out: the parts, memory and disk, other machines, what is assumed."""
    return "\n".join(line.rstrip() for line in _lines(plan))


def _lines(plan: RunPlan) -> Iterator[str]:
    config, size = plan.run.config, plan.size
    names = ", ".join((plan.run.task.name, size.lm.name, config.method["name"]))
    yield shortened(f"{names}: {plan.run.path}, {plan.state}", MAX_WIDTH, from_end=True)
    if plan.state == FINISHED:
        yield "nothing is left to compute; force=true computes it again"
        return
    yield (
        f"{config.model.dtype} on {config.model.device}, {size.parameters / 1e6:,.0f} M parameters "
        f"in {size.layers} layers; {plan.documents:,} documents in {plan.cells} cells"
    )
    yield ""
    yield from aligned(_table(plan))
    yield ""
    yield from _room(plan)
    yield ""
    yield from aligned(_cards(plan))
    for note in (*_speeds(plan), f"other machines: {ARITHMETIC}", *plan.notes):
        yield from textwrap.wrap(f"- {note}", MAX_WIDTH, subsequent_indent="  ")


def _table(plan: RunPlan) -> list[list[str]]:
    rows = [["", "prompts", "batches", "done", "passes", "tokens", "TFLOP", "time left"]]
    rows += [_part_row(plan, part) for part in plan.parts]
    if plan.training.flops:
        cost = plan.training
        told = [f"{cost.passes:,}", f"{cost.tokens:,}", _tera(cost.flops)]
        rows.append(["fine-tuning", "", "", "", *told, _time(plan.seconds(cost, PAIRS))])
    rows += [[name, *[""] * 6, _time(seconds)] for name, seconds in plan.around.items()]
    counts = [sum(each) for each in zip(*((p.batches, p.done) for p in plan.parts), strict=True)]
    left = plan.left
    sums = [*counts, left.passes, left.tokens]
    total = ["all that is left", "", *(f"{each:,}" for each in sums), _tera(left.flops)]
    return [*rows, [*total, _time(plan.here)]]


def _part_row(plan: RunPlan, part: Part) -> list[str]:
    cost = part.cost
    counts = (part.prompts, part.batches, part.done, cost.passes, cost.tokens)
    seconds = plan.seconds(part.left, part.kind)
    name = shortened(part.name, 32)
    return [name, *(f"{each:,}" for each in counts), _tera(cost.flops), _time(seconds)]


def _room(plan: RunPlan) -> Iterator[str]:
    room = plan.room
    yield (
        f"memory  {gigabytes(room.memory)}: weights {gigabytes(room.weights)}, widest batch "
        f"{gigabytes(room.batch)}, libraries; free {gigabytes(room.free_memory)}: "
        f"{_fits(room.memory, room.free_memory)}"
    )
    fetched = f" and {gigabytes(room.fetched)} of weights to fetch" if room.fetched else ""
    yield (
        f"disk    {gigabytes(room.disk)}{fetched}; free {gigabytes(room.free_disk)}: "
        f"{_fits(room.disk + room.fetched, room.free_disk)}"
    )


def _cards(plan: RunPlan) -> list[list[str]]:
    bits = plan.gpu_size.number_bytes * 8
    rows = [[f"other machines, {bits} bits", "time left", "memory", ""]]
    for card in CARDS:
        fits = "fits" if card.fits(plan.gpu_bytes) else _too_large(plan, card.memory * 1e9)
        rows.append([card.name, _time(plan.on(card)), f"{card.memory:g} GB", fits])
    return rows


def _too_large(plan: RunPlan, memory: float) -> str:
    fits = plan.gpu_size.weights_bytes < 0.9 * memory
    return "batches are halved" if fits else "weights do not fit"


def _speeds(plan: RunPlan) -> Sequence[str]:
    if not plan.speeds:
        return []
    kinds = {part.kind for part in plan.parts if part.left.flops}
    told = ", ".join(
        f"{kind} {_speed(speed)}" for kind, speed in plan.speeds.items() if kind in kinds
    )
    return [f"measured here in a few passes: {told}; other work on this machine changes it"]


def _speed(speed: Speed) -> str:
    told = f"{speed.flops / 1e9:,.1f} GFLOP/s"
    if speed.a_pass:
        told += f" and {speed.a_pass * 1000:,.0f} ms a pass"
    return told if speed.share == 1 else f"{told}, of {speed.share:.0%} of the full length"


def gigabytes(size: int) -> str:
    """Write a number of bytes."""
    return f"{size / 1e9:,.2f} GB" if size > 5e6 else f"{size / 1e6:,.2f} MB"


def _fits(needed: int, free: int) -> str:
    return "fits" if needed <= free else "does not fit"


def _tera(flops: int) -> str:
    return f"{flops / 1e12:,.2f}"


def _time(seconds: float | None) -> str:
    return MISSING if seconds is None else duration(seconds)


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it, with two digits."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 or not seconds else f"{seconds:.1f} s"
