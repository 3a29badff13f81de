"""What an intervention did to the prompts, averaged over them in every cell."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from sadi_bench.scoring.answers import Tokens


class Measured:
    """Keep what was measured: an array over cells a prompt and name.

    A cell's numbers are known where it was scored on the prompt, or wrote behind it.
    """

    def __init__(self, n_cells: int) -> None:
        self.n_cells = n_cells
        self._known: dict[Tokens, np.ndarray] = {}
        self._values: dict[str, dict[Tokens, np.ndarray]] = {}

    def add(
        self, prompt: Tokens, cells: Sequence[int], did: Mapping[str, np.ndarray | float]
    ) -> None:
        """Note by name what was done to a prompt in some cells, a number each."""
        for name, values in did.items():
            of_prompt = self._values.setdefault(name, {})
            row = of_prompt.setdefault(prompt, np.zeros(self.n_cells))
            row[cells] = values
            self._known.setdefault(prompt, np.zeros(self.n_cells, dtype=bool))[cells] = True

    def means(self) -> dict[str, list[float | None]]:
        """Average over the prompts that a cell's numbers are known of; None where it has none."""
        if not self._known:
            return {}
        known = np.stack(list(self._known.values()))
        found: dict[str, list[float | None]] = {}
        for name, rows in self._values.items():
            table = np.stack([rows[prompt] for prompt in self._known])
            columns = [values[here].tolist() for values, here in zip(table.T, known.T, strict=True)]
            found[name] = [fmean(values) if values else None for values in columns]
        return found
