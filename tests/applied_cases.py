"""Interventions of every method that steers, and padded inputs, for the tests of `applied`."""

import random
from collections.abc import Sequence
from functools import cache

import torch

from cases import contrasts, draw, tiny_lm
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.steering.intervention import Intervention
from sadi_bench.steering.methods.caa import Caa
from sadi_bench.steering.methods.hpr import Hpr
from sadi_bench.steering.methods.inferaligner import InferAligner
from sadi_bench.steering.methods.iti import Iti
from sadi_bench.steering.methods.sadi import Sadi
from sadi_bench.steering.methods.tda import Tda

STRONG = {"top_k": [6], "strength": [-4.0]}
METHODS = {
    "sadi": Sadi(**STRONG),
    "sadi every step": Sadi(site="neuron", reach="from_last_prompt", **STRONG),
    "sadi one layer": Sadi(site="hidden", top_k=1, strength=[-20.0]),  # and overwrites the others
    "sadi inflight": Sadi(site="hidden", patch="inflight", **STRONG),
    "sadi residual": Sadi(site="hidden", hidden_site="residual", vector="fixed_norm",
                          reach="from_last_prompt", **STRONG),
    "iti": Iti(top_k=[4], alpha=[15.0]),
    "caa": Caa(layer=1, multiplier=[2.0]),
    "hpr": Hpr(top_k=2, epochs=1),
    "inferaligner": InferAligner(top_k=2, alpha=[4.0]),
    "tda": Tda([1.5]),
}  # fmt: skip
PROMPTS = [draw(random.Random(7), n) for n in (9, 24, 1, 17)]


@cache
def fitted(name: str, method: str) -> Intervention:
    return METHODS[method].fit(tiny_lm(name), contrasts(12))


def padded(lm: LanguageModel, texts: Sequence[Sequence[int]], side: str) -> dict:
    """Ids, mask and, where the model takes them, positions of texts of several lengths."""
    longest = max(map(len, texts))
    ids = torch.full((len(texts), longest), 77)
    mask = torch.zeros(len(texts), longest, dtype=torch.long)
    for row, text in enumerate(texts):
        place = slice(len(text)) if side == "right" else slice(longest - len(text), None)
        ids[row, place], mask[row, place] = torch.tensor(text), 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    if lm.takes_position_ids:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return inputs
