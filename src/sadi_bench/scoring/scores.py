"""What scoring hands on: one frame, and what a run's other files are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Scores:
    """Hold the scores of a task in every cell.

    frame: a row a split × document × cell, as grid.parquet has it.
    docs: a row a document: its tokens and texts.
    lm_eval: lm-eval's own evaluation of the unsteered model on the test split.
    texts: what the model wrote, a row a split × document × cell; None where it chooses.
    measured: what the intervention did, one number a cell, by name.
    merged: how many answers had a token across the boundary to their prompt.
    """

    frame: pd.DataFrame
    docs: tuple[Mapping[str, Any], ...]
    lm_eval: Mapping[str, Any]
    texts: pd.DataFrame | None = None
    measured: Mapping[str, list[float | None]] = field(default_factory=dict)
    merged: int = 0
