"""CAA's held-out cell as a control vector of llama.cpp.

llama.cpp adds tensor `direction.N` to what leaves its block N, counted from 0, at every token; it
never steers block 0 (llama-adapter.cpp: "there's never a tensor for layer 0"). So N is our layer.
"""

import tempfile
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from sadi_bench.results.exporting.exported import POSITIONS, Exported
from sadi_bench.results.formatting import parameters

VECTOR = "control_vector.gguf"
ARCHITECTURE = "controlvector"
CAA = "caa"


def control_vector(exported: Exported) -> tuple[bytes | None, str]:
    """Return the file's bytes and what it is; or None, and why there is none."""
    origin, params = exported.steering.origin, exported.heldout["params"]
    if origin.method["kind"] != CAA:
        return None, (
            "not written: llama.cpp adds a fixed vector to what leaves a block, and of the methods "
            "here only caa does"
        )
    layer = int(params["layer"])
    if layer == 0:
        return None, "not written: llama.cpp never steers layer 0, which the held-out cell does"
    vector = exported.steering.difference[layer].float().cpu().numpy()
    content = _gguf(
        np.float32(params["multiplier"]) * vector, layer, str(origin.model["model_type"])
    )
    return content, (
        f"llama.cpp's control vector ({parameters(params)}); llama.cpp adds it at every token, "
        f"where the run steered {POSITIONS[exported.steering.reach]}"
    )


def _gguf(vector: np.ndarray, layer: int, model_hint: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / VECTOR
        writer = GGUFWriter(file, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", model_hint)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", 1)  # of this file
        writer.add_tensor(f"direction.{layer}", np.ascontiguousarray(vector, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return file.read_bytes()
