"""Time the engine alone, on random weights of a model's shape: speed does not need the weights.

Needs torch and transformers, no hub and no lm-eval:
PYTHONPATH=src python scripts/benchmark_engine.py --shape llama2-7b --device cuda --peak 989
"""

import argparse
import time
from itertools import product

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from sadi_bench.models.families import Site
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.tiny_random import byte_tokenizer
from sadi_bench.scoring.choices import ChoiceRequest, score_choices
from sadi_bench.steering.intervention import UNSTEERED, Cell, Reach
from sadi_bench.steering.methods.sadi import MaskedSteering

SHAPES = {
    "llama2-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                  "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000},
    "smollm2-135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                     "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152},
    "tiny": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512},
}  # fmt: skip
GRIDS = {  # the paper's, arXiv 2410.12299
    Site.head: ([1, 2, 4, 6, 8, 10], range(5, 85, 5)),
    Site.neuron: ([3, 5, 10, 30, 50, 100, 200, 300, 400, 500], [10, 20, 30, 50, 70, 90]),
    Site.hidden: ([1, *range(2, 22, 2)], range(5, 85, 5)),
}
TABLE_1_DOCUMENTS = 25_500


def main() -> None:
    """Time each granularity's grid on a sample, and extrapolate to the documents of Table 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama2-7b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--docs", type=int, default=512, help="size of the sample")
    parser.add_argument("--tokens", type=int, default=100, help="mean length of a prompt")
    parser.add_argument("--budget", type=int, default=None, help="tokens of a pass")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak", type=float, default=None, help="TFLOP/s that the device can do")
    args = parser.parse_args()
    lm, requests = _model(args), _requests(args)
    prompt_tokens = sum(len(r.prompt) for r in requests)
    size = sum(p.numel() for p in lm.network.parameters()) / 1e9
    print(f"{args.shape} shape, {size:.2f} G parameters, {lm.dtype}, {lm.device}")
    print(f"{args.docs} documents, {prompt_tokens / args.docs:.0f} tokens a prompt")
    minutes = 0.0
    for site in GRIDS:
        intervention = _intervention(lm, site)
        score_choices(lm, requests[: args.docs // 8 + 1], intervention, args.budget)  # warm up
        seconds = []
        for _ in range(args.repeats):
            start = time.perf_counter()
            score_choices(lm, requests, intervention, args.budget)
            seconds.append(time.perf_counter() - start)
        middle = float(np.median(seconds))
        with FlopCounterMode(display=False) as counter:
            score_choices(lm, requests, intervention, args.budget)
        rate = counter.get_total_flops() / middle / 1e12
        share = f", {100 * rate / args.peak:.0f} % of peak" if args.peak else ""
        cells = len(intervention.cells)
        passes = (prompt_tokens + args.docs * cells) / middle
        whole = middle / args.docs * TABLE_1_DOCUMENTS / 60
        minutes += whole
        print(
            f"{site.value}: {cells - 1} cells, {middle:.2f} s [{min(seconds):.2f}, "
            f"{max(seconds):.2f}], {passes:,.0f} token passes/s, {rate:.1f} TFLOP/s executed"
            f"{share}; {TABLE_1_DOCUMENTS:,} documents: {whole:.1f} minutes"
        )
    print(f"Table 1's three grids, extrapolated: {minutes:.1f} minutes")
    if lm.device.type == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


def _model(args: argparse.Namespace) -> LanguageModel:
    config = LlamaConfig(**SHAPES[args.shape], max_position_embeddings=4096)
    torch.manual_seed(0)
    dtype = torch.float32 if args.shape == "tiny" else torch.bfloat16
    with torch.device(args.device):
        own, _ = torch.get_default_dtype(), torch.set_default_dtype(dtype)
        network = LlamaForCausalLM(config)
        torch.set_default_dtype(own)
    return LanguageModel(args.shape, network, byte_tokenizer())


def _requests(args: argparse.Namespace) -> list[ChoiceRequest]:
    """Draw prompts of ragged lengths, each with two answers of one token."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(args.tokens // 2, 3 * args.tokens // 2 + 1, args.docs)
    vocab = SHAPES[args.shape]["vocab_size"]
    return [
        ChoiceRequest(tuple(rng.integers(0, vocab, length).tolist()), ((5,), (6,)))
        for length in lengths
    ]


def _intervention(lm: LanguageModel, site: Site) -> MaskedSteering:
    """Lay out the paper's grid over elements drawn at random."""
    top_ks, strengths = GRIDS[site]
    points = list(product(top_ks, strengths))
    cells = [Cell(i, {"top_k": k, "strength": s}) for i, (k, s) in enumerate(points, 1)]
    shape = (lm.num_layers, lm.num_elements(site))
    ranks = torch.from_numpy(np.random.default_rng(1).permutation(shape[0] * shape[1]))
    return MaskedSteering(
        site=site,
        reach=Reach.last_prompt,
        cells=(UNSTEERED, *cells),
        ranks=ranks.reshape(shape),
        scores=torch.zeros(shape),
        difference=torch.zeros(shape[0], lm.widths[site]),
        overwrites=True,
    )


if __name__ == "__main__":
    main()
