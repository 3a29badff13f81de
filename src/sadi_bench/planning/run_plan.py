"""The plan of one run: what is left to do, and how long it takes here or on a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sadi_bench.experiment import Settled
from sadi_bench.planning.batch_cost import NOTHING, Cost
from sadi_bench.planning.calibrating import Speed
from sadi_bench.planning.cards import Card
from sadi_bench.planning.network_size import NetworkSize
from sadi_bench.planning.plan_parts import PAIRS, Part
from sadi_bench.planning.room import Room

FINISHED = "finished"


@dataclass(frozen=True)
class RunPlan:
    """Hold the plan of one run; a finished one has no parts.

    state: new, unfinished or finished. training: what is left of fine-tuning. speeds: a kind of
    passes → how fast they are here; empty where no pass could be timed. around: what else takes
    seconds here, by name. notes: what is assumed or not counted.
    """

    run: Settled
    state: str
    size: NetworkSize
    gpu_size: NetworkSize
    documents: int
    cells: int = 0
    parts: tuple[Part, ...] = ()
    training: Cost = NOTHING
    speeds: Mapping[str, Speed] = field(default_factory=dict)
    around: Mapping[str, float] = field(default_factory=dict)
    room: Room | None = None
    notes: tuple[str, ...] = ()

    @property
    def left(self) -> Cost:
        """All that is left to compute."""
        return sum((part.left for part in self.parts), self.training)

    def seconds(self, cost: Cost, kind: str) -> float | None:
        """Return the time of some passes here."""
        return self.speeds[kind].seconds(cost) if self.speeds else None

    @property
    def here(self) -> float | None:
        """Seconds on this machine; None where they are not known."""
        if self.parts and not self.speeds:
            return None
        passes = [self.seconds(part.left, part.kind) for part in self.parts]
        passes += [self.seconds(self.training, PAIRS)] if self.training.flops else []
        return sum(passes) + sum(self.around.values())

    @property
    def gpu_bytes(self) -> int:
        """Memory that the passes take on a GPU."""
        held = max((part.on_gpu.held for part in self.parts), default=0)
        return self.gpu_size.weights_bytes + held

    def on(self, card: Card) -> float:
        """Return the seconds of the passes that are left on a GPU."""
        costs = [*(part.on_gpu for part in self.parts), self.training]
        return sum(card.seconds(cost, self.gpu_size) for cost in costs)
