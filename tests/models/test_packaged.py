"""A model out of a package: de-quantised once, checked before each use, made again when wrong."""

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from damage import contents, flip, full_disk
from packaged_gguf import write_package
from sadi_bench import sealed
from sadi_bench.errors import SettingError
from sadi_bench.models.packaged import packaged_model
from sadi_bench.models.spec import PackagedModel
from sadi_bench.sealed import broken

SEAL = "sealed.json"


@pytest.fixture
def package(tmp_path, monkeypatch) -> PackagedModel:
    monkeypatch.setenv("SADI_BENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return write_package(tmp_path)


def files(folder: Path) -> dict[str, bytes]:
    """All but the seal, which tells times."""
    return {name: content for name, content in contents(folder).items() if name != SEAL}


def change(folder: Path, what: str) -> str:
    """Damage a model's folder; return the name of the file."""
    if what == "a weight's bit":
        flip(folder / "model.safetensors")
        return "model.safetensors"
    if what == "exchanged ids":
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        vocab = tokenizer["model"]["vocab"]
        vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        return "tokenizer.json"
    if what == "rope_theta":
        text = (folder / "config.json").read_text()
        (folder / "config.json").write_text(text.replace("10000.0", "50000.0"))
        return "config.json"
    if what == "no seal":
        (folder / SEAL).unlink()
        return SEAL
    (folder / "tokenizer_config.json").unlink()
    return "tokenizer_config.json"


def test_it_is_made_once_and_made_again_where_it_is_damaged(package, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = packaged_model(package)
    whole = files(folder)
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= whole.keys()
    assert packaged_model(package) == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert sum("de-quantising" in message for message in caplog.messages) == 1
    for what in ("a weight's bit", "exchanged ids", "rope_theta", "no seal", "a lost file"):
        caplog.clear()
        name = change(folder, what)
        assert files(folder) != whole or name == SEAL
        assert packaged_model(package) == folder
        assert files(folder) == whole, what
        (told,) = (record.message for record in caplog.records if record.levelname == "WARNING")
        assert told.startswith(f"{folder / name}: ") and told.endswith("it is made again")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert (tmp_path / "damaged" / f"models-{folder.name}").is_dir()


def test_a_large_weight_file_is_read_where_its_time_moved(package, monkeypatch):
    monkeypatch.setattr(sealed, "SMALL", 10_000)
    folder = packaged_model(package)
    whole = files(folder)
    flip(folder / "model.safetensors")
    assert files(packaged_model(package)) != whole  # only `sadi-bench doctor` reads it
    os.utime(folder / "model.safetensors")
    assert files(packaged_model(package)) == whole


def test_another_package_is_never_answered_with_what_lies_in_the_cache(package):
    folder = packaged_model(package)
    whole = files(folder)
    other = dataclasses.replace(package, sha256="0000")
    with pytest.raises(SettingError, match=r"model=toy: could not download toy-model==1\.0"):
        packaged_model(other)
    assert files(packaged_model(package)) == whole


@pytest.mark.parametrize("room", [20_000, 100_000], ids=["unpacking", "saving"])
def test_a_full_disk_is_one_line_and_leaves_nothing(package, tmp_path, room):
    with full_disk(room), pytest.raises(SettingError) as caught:
        packaged_model(package)
    assert "model.package=toy-model==1.0: cannot be kept in" in str(caught.value)
    assert not list((tmp_path / "models").iterdir())


KILLED = """
import os, signal, sys
from transformers import PreTrainedModel
from sadi_bench.models.packaged import packaged_model
from sadi_bench.models.spec import PackagedModel
PreTrainedModel.save_pretrained = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
packaged_model(PackagedModel(*sys.argv[1:]))
"""


def test_a_kill_while_it_is_made_costs_nothing_but_the_time(package):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *dataclasses.astuple(package)],
        env={**os.environ, "PYTHONPATH": str(Path(sealed.__file__).parents[1])},
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = packaged_model(package)
    assert broken(folder, full=True) is None
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
