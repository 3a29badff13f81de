"""A method's grid: cell 0, and the product of its lists of settings."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

from sadi_bench.steering.intervention import UNSTEERED, Cell

Distance = tuple[float | int, ...]
"""How far a cell is from doing nothing, compared entry by entry; () does nothing."""


def cells_of(
    distance: Callable[[Mapping[str, float | int]], Distance], **axes: Sequence[float | int]
) -> tuple[Cell, ...]:
    """Lay out cell 0 and the product of the axes, the first outermost.

    `distance` measures a cell's parameters; a cell's size is the rank of what it returns.
    """
    points = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    distances = [distance(point) for point in points]
    sizes = {found: rank for rank, found in enumerate(sorted({(), *distances}))}
    cells = [
        Cell(i, point, sizes[found])
        for i, (point, found) in enumerate(zip(points, distances, strict=True), 1)
    ]
    return (UNSTEERED, *cells)


def distance_of(change: float, *counts: float) -> Distance:
    """Compare by the number of elements, then by the change's size, then positive first.

    Rounded: 1.1 - 1 and 0.9 - 1 differ in their last bit.
    """
    return (*counts, round(abs(change), 9), change < 0) if change else ()
