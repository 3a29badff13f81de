"""What fine-tuning costs, where no checkpoint of it is kept."""

from collections.abc import Sequence

from sadi_bench.experiment import Settled
from sadi_bench.models.finetune import checkpoint_folder, checkpoint_key
from sadi_bench.planning.batch_cost import NOTHING, Cost, Pass
from sadi_bench.planning.network_size import NetworkSize
from sadi_bench.steering.activations import EncodedContrast

FORWARDS = 3
"""A training step costs as much as so many forward passes: the usual reckoning."""


def training_left(run: Settled, size: NetworkSize, pairs: Sequence[EncodedContrast]) -> Cost:
    """Count the passes of all epochs; nothing without fine-tuning, or where it was done."""
    spec, seed = run.config.finetune, run.config.seed
    if spec.kind == "none":
        return NOTHING
    examples = [(pair.prompt, pair.positive) for pair in pairs]
    for autocast in (True, False):
        key = checkpoint_key(size.lm.fingerprint, spec, examples, seed, autocast)
        if checkpoint_folder(key) is not None:
            return NOTHING
    total = NOTHING
    for start in range(0, len(examples), spec.batch_size):
        some = examples[start : start + spec.batch_size]
        longest = max(len(prompt) + len(answer) for prompt, answer in some)
        tokens = longest * len(some)
        total += Pass(tokens, longest, prefix=0, asked=tokens).cost(size)
    return total.times(FORWARDS * spec.epochs)
