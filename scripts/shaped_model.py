"""Make a model of the size of Llama-2-7B with random bfloat16 weights on disk, about 14 GB.

    python scripts/shaped_model.py FOLDER
    sadi-bench task=copa model=custom model.pretrained=FOLDER task.n_pairs=4 task.n_select=4 \
        task.n_test=4

Nothing is measured with it but memory and time: its answers mean nothing. One file of weights is
written after the other, so that making it takes 2 GB of memory. The embedded model lends its
tokenizer.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from sadi_bench.composing import composed
from sadi_bench.models.packaged import packaged_model

SHARD = 1 << 30
"""Bytes of a file of weights."""
SPREAD = 0.02


def config_of(vocab: int, end: int) -> LlamaConfig:
    """Return the sizes of Llama-2-7B (arXiv 2307.09288), with another vocabulary."""
    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        bos_token_id=end,
        eos_token_id=end,
        dtype="bfloat16",
        tie_word_embeddings=False,
    )


def shapes(config: LlamaConfig) -> dict[str, torch.Size]:
    """Name every tensor without making one."""
    with torch.device("meta"):
        network = LlamaForCausalLM(config)
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def drawn(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Draw weights; norms are one."""
    if name.endswith("norm.weight"):
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(0, SPREAD, generator=generator)


def write_weights(folder: Path, sizes: dict[str, torch.Size]) -> None:
    """Write the shards one by one, and the index that finds a tensor in them."""
    generator, part, held, where = torch.Generator().manual_seed(0), {}, 0, {}
    for number, (name, shape) in enumerate(tqdm(sizes.items(), disable=None), start=1):
        part[name] = drawn(name, shape, generator)
        held += part[name].nbytes
        if held >= SHARD or number == len(sizes):
            file = f"model-{number:05d}.safetensors"
            save_file(part, folder / file, metadata={"format": "pt"})
            where |= dict.fromkeys(part, file)
            part, held = {}, 0
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def main() -> None:
    """Make the folder named on the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    package = composed("model=smollm2-135m").model.package
    tokenizer = AutoTokenizer.from_pretrained(packaged_model(package))
    config = config_of(len(tokenizer), tokenizer.eos_token_id)
    write_weights(folder, shapes(config))
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
