"""Everything that a run is told: the fields of configs/config.yaml and its groups."""

from dataclasses import dataclass, field
from typing import Any

from sadi_bench.models.spec import ModelSpec
from sadi_bench.tasks.spec import TaskSpec


@dataclass
class RunConfig:
    """Hold everything that decides a run's result, and where it is written."""

    task: TaskSpec = field(default_factory=TaskSpec)
    model: ModelSpec = field(default_factory=ModelSpec)
    method: dict[str, Any] = field(default_factory=dict)
    """`kind` names a module of steering/methods; the other keys are its fields."""
    protocol: str = "heldout"
    """heldout | paper (the paper's own rows; the oracle alone can be reported)."""
    select_by: str = "acc"
    """Metric that chooses the cell: acc | acc_norm | exact_match."""
    seed: int = 0
    """Draws splits, wrong answers, demonstrations and bootstrap samples."""
    token_budget: int | None = None
    """Tokens of one pass; null takes what suits the device."""
    runs_dir: str = "results/runs"
    force: bool = False
    """Compute again what is already there."""
    debug: bool = False
    """Show tracebacks of user errors."""
