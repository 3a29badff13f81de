"""What GPUs could do, by arithmetic: nothing here is measured."""

from dataclasses import dataclass

from sadi_bench.planning.batch_cost import Cost
from sadi_bench.planning.network_size import NetworkSize

USED_FLOPS = 0.3
"""Share of a card's peak that packed passes are taken to reach. Assumed, not measured."""

USED_BANDWIDTH = 0.6
"""Share of the memory's bandwidth at which weights are taken to be read. Assumed, not measured."""

SECONDS_A_BLOCK = 1e-3
"""Least time of a block in a pass: transformers' Python starts its kernels. Assumed."""

GB = 1e9


@dataclass(frozen=True)
class Card:
    """Hold a GPU's data sheet: dense TFLOP/s, memory in GB, bandwidth in GB/s."""

    name: str
    bfloat16: float
    float32: float
    memory: float
    bandwidth: float

    def seconds(self, cost: Cost, size: NetworkSize) -> float:
        """Return the time of some passes: what takes longest of computing, reading, starting."""
        peak = self.float32 if size.number_bytes == 4 else self.bfloat16
        read = cost.blocks * size.block * size.number_bytes
        return max(
            cost.flops / (peak * 1e12 * USED_FLOPS),
            read / (self.bandwidth * GB * USED_BANDWIDTH),
            cost.blocks * SECONDS_A_BLOCK,
        )

    def fits(self, needed: float) -> bool:
        """Say whether so many bytes have room."""
        return needed <= self.memory * GB


CARDS = (
    Card("L4", 121, 30.3, 24, 300),
    Card("RTX 4090", 165, 82.6, 24, 1008),
    Card("L40S", 362, 91.6, 48, 864),
    Card("A100 40 GB", 312, 19.5, 40, 1555),
    Card("A100 80 GB", 312, 19.5, 80, 2039),
    Card("H100 SXM", 989, 67.0, 80, 3350),
    Card("H200 SXM", 989, 67.0, 141, 4800),
)
"""NVIDIA's data sheets, without sparsity; float32 without TF32."""
