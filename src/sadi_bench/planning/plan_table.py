"""The plan of a sweep as text: a row a run, the sum, and what other machines would take."""

import textwrap
from collections.abc import Sequence

from sadi_bench.errors import SettingError
from sadi_bench.planning.cards import CARDS
from sadi_bench.planning.plan_text import ARITHMETIC, duration
from sadi_bench.planning.run_plan import RunPlan
from sadi_bench.results.formatting import MAX_WIDTH, MISSING, aligned, shortened

Planned = tuple[Sequence[str], RunPlan | SettingError]
"""What was set for a run, and its plan or why there is none."""

HEADER = ["run", "docs", "cells", "batches", "done", "TFLOP left", "time left"]


def sweep_text(found: Sequence[Planned]) -> str:
    """Lay the plans of a sweep out; what is finished counts as 0."""
    plans = [plan for _, plan in found if isinstance(plan, RunPlan)]
    rows = [HEADER, *(_row(plan) for plan in plans)]
    flops, batches = sum(plan.left.flops for plan in plans), [sum(_batches(p)) for p in plans]
    times = _times(plans)
    here = MISSING if None in times else duration(sum(times))
    done = sum(part.done for plan in plans for part in plan.parts)
    count = f"{len(plans)} runs, {sum(not plan.parts for plan in plans)} finished"
    rows.append([count, "", "", f"{sum(batches):,}", f"{done:,}", f"{flops / 1e12:,.1f}", here])
    lines = [*aligned(rows), "", *aligned(_cards(plans))]
    for note in dict.fromkeys((f"other machines: {ARITHMETIC}", *_notes(plans))):
        lines += textwrap.wrap(f"- {note}", MAX_WIDTH, subsequent_indent="  ")
    for settings, error in found:
        if isinstance(error, SettingError):
            lines += textwrap.wrap(
                f"refused: {' '.join(settings)}: {error}", MAX_WIDTH, subsequent_indent="  "
            )
    return "\n".join(line.rstrip() for line in lines)


def _row(plan: RunPlan) -> list[str]:
    config = plan.run.config
    names = (plan.run.task.name, plan.size.lm.name, config.method["name"], f"seed {config.seed}")
    name = shortened(" ".join(names), 44)
    if not plan.parts:
        return [name, f"{plan.documents:,}", "", "", "", "0", plan.state]
    here = MISSING if plan.here is None else duration(plan.here)
    done = f"{sum(part.done for part in plan.parts):,}"
    counts = [f"{plan.documents:,}", f"{plan.cells:,}", f"{sum(_batches(plan)):,}", done]
    return [name, *counts, f"{plan.left.flops / 1e12:,.1f}", here]


def _batches(plan: RunPlan) -> list[int]:
    return [part.batches for part in plan.parts]


def _times(plans: Sequence[RunPlan]) -> list[float | None]:
    """Return the seconds of every run here; runs in turn share a model that is loaded once."""
    times: list[float | None] = []
    before = None
    for plan in plans:
        seconds, spec = plan.here, plan.run.config.model
        if seconds and spec == before:
            seconds -= plan.around["loading the model"]
        before = spec if plan.parts else before
        times.append(seconds)
    return times


def _cards(plans: Sequence[RunPlan]) -> list[list[str]]:
    rows = [["other machines", "time left", "memory", ""]]
    most = max(plan.gpu_bytes for plan in plans)
    for card in CARDS:
        time = duration(sum(plan.on(card) for plan in plans))
        rows.append(
            [card.name, time, f"{card.memory:g} GB", "" if card.fits(most) else "too small"]
        )
    return rows


def _notes(plans: Sequence[RunPlan]) -> list[str]:
    return [note for plan in plans for note in plan.notes]
