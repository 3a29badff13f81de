"""What scoring hands on: the grid in pieces, and what a run's other files are made of."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from sadi_bench.grid_file import whole_frame
from sadi_bench.scoring.frame import Pieces


@dataclass(frozen=True)
class Scores:
    """Hold the scores of a task in every cell.

    pieces: makes the grid, some documents at a time: a row a split × document × cell.
    docs: makes a row a document: its tokens and texts.
    lm_eval: lm-eval's own evaluation of the unsteered model on the test split.
    texts: what the model wrote, a row a split × document × cell; None where it chooses.
    measured: what the intervention did, one number a cell, by name.
    merged: how many answers had a token across the boundary to their prompt.
    """

    pieces: Pieces
    docs: Callable[[], Iterator[Mapping[str, Any]]]
    lm_eval: Mapping[str, Any]
    texts: pd.DataFrame | None = None
    measured: Mapping[str, list[float | None]] = field(default_factory=dict)
    merged: int = 0

    def whole(self) -> pd.DataFrame:
        """Return the grid as one frame."""
        return whole_frame(self.pieces())
