"""Rows with the place where each stands: what every source gives."""

from dataclasses import dataclass, field

from sadi_bench.tasks.readers.lines import Row

LocatedRow = tuple[str, Row]  # where it stands ("copa-test.xml line 5"), its columns


@dataclass
class Rows:
    """What a source holds; with `carve`, the identify rows are still to be taken from `test`."""

    identify: list[LocatedRow]
    test: list[LocatedRow]
    carve: bool = False
    notes: list[str] = field(default_factory=list)
