"""What a token costs a network, from its shapes alone."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn
from transformers import DynamicCache

from sadi_bench.models.families import Site, blocks_of
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.loading import DTYPES
from sadi_bench.models.skeleton import planned_on


@dataclass(frozen=True)
class NetworkSize:
    """Count a network's weights and what a token makes it hold; all blocks are taken to be alike.

    block: weights of one block's matrices. attended: query heads × head_dim. kept: keys and values
    of one token, all layers together, in numbers. widest: numbers of a token inside a block.
    number_bytes: of a weight or an activation.
    """

    lm: LanguageModel
    parameters: int
    block: int
    attended: int
    kept: int
    widest: int
    number_bytes: int

    @property
    def layers(self) -> int:
        """Number of decoder blocks."""
        return self.lm.num_layers

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights."""
        return self.parameters * self.number_bytes

    @cached_property
    def output(self) -> int:
        """Weights of the output layer."""
        return self.lm.network.get_output_embeddings().weight.numel()

    @property
    def vocab(self) -> int:
        """Number of logits."""
        return self.lm.network.config.vocab_size

    def idle(self, site: Site) -> int:
        """Count a block's weights that run for the first copy alone where `site` is overwritten.

        They lie between what feeds the site and the site itself; see `fed_by_first_copy`.
        """
        family = self.lm.family
        block, point = blocks_of(self.lm.network, family)[0], getattr(family, site.value)
        own, behind = _weights(block.get_submodule(point.module)), {}
        found = _weights(block.get_submodule(point.producer))
        if point.side == "input":
            behind = own
        else:
            found |= own
        return sum(count for name, count in found.items() if name not in behind)


def network_size(lm: LanguageModel) -> NetworkSize:
    """Read the sizes off a network, which may be without weights."""
    cache = DynamicCache()
    with torch.inference_mode():
        ids = torch.zeros(1, 1, dtype=torch.long, device=lm.device)
        lm.backbone(input_ids=ids, past_key_values=cache, use_cache=True)
    return NetworkSize(
        lm,
        parameters=sum(parameter.numel() for parameter in lm.network.parameters()),
        block=sum(_weights(blocks_of(lm.network, lm.family)[0]).values()),
        attended=lm.widths[Site.head],
        kept=sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers),
        widest=3 * lm.widths[Site.neuron] + 4 * lm.widths[Site.residual],
        number_bytes=lm.dtype.itemsize,
    )


def on_gpu(size: NetworkSize, dtype: str) -> NetworkSize:
    """Return the sizes with batches planned for a GPU; `dtype` as a user says it."""
    number_bytes = DTYPES.get(dtype, torch.bfloat16).itemsize  # auto takes bfloat16 there
    return replace(size, lm=planned_on(size.lm, "cuda"), number_bytes=number_bytes)


def _weights(module: nn.Module) -> dict[int, int]:
    """Count the matrices' entries, by the identity of each."""
    return {id(each): each.numel() for each in module.parameters() if each.dim() > 1}
