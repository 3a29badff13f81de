"""What is kept of a batch proves itself whole, and what does not is told and done again."""

import logging
import os

import numpy as np
import pytest

from sadi_bench.batches.shards import Shards, kept_batches, remove_shards

ARRAYS = {
    "logprobs": np.array([[0.5, -np.inf], [-1.25, np.nan]], dtype=np.float32),
    "text": np.frombuffer("naïve".encode(), dtype=np.uint8),
    "none": np.zeros((0, 3), dtype=np.int32),
    "finite": np.array([True, False]),
    "transposed": np.arange(6).reshape(2, 3).T,
}


@pytest.fixture
def folder(tmp_path):
    shards = Shards(tmp_path / "job", 3, "scoring")
    for number in range(3):
        shards.keep(number, ARRAYS, halvings=number)
    return tmp_path / "job"


def only(folder, number):
    (path,) = folder.glob(f"{number:05d}-*")
    return path


def test_what_is_kept_is_read_bit_for_bit(folder):
    shards = Shards(folder, 3, "scoring")
    assert all(number in shards for number in range(3))
    found = shards.read(1)
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("harm", ["flipped", "cut", "empty", "another batch's", "unknown", "half"])
def test_a_damaged_or_foreign_shard_is_named_set_aside_and_not_there(folder, harm, caplog):
    path, lost = only(folder, 1), 1
    content = bytearray(path.read_bytes())
    if harm == "flipped":
        content[-1] ^= 1
        path.write_bytes(content)
    elif harm == "cut":
        path.write_bytes(content[:-3])
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "another batch's":
        os.replace(only(folder, 2), path)
        path, lost = path, 2
    elif harm == "unknown":
        path, lost = path.rename(folder / "00099-none.safetensors"), 1
    else:
        path, lost = path.rename(folder / f".{path.name}.abc.tmp"), 1
    with caplog.at_level(logging.WARNING):
        shards = Shards(folder, 3, "scoring")
    assert lost not in shards
    assert str(path) in caplog.text
    assert (folder / "aside" / path.name).exists()
    assert 0 in shards
    caplog.clear()
    assert lost not in Shards(folder, 3, "scoring")
    assert not caplog.text  # told once


def test_batches_beyond_the_plan_are_foreign(folder):
    shards = Shards(folder, 2, "scoring")
    assert 2 not in shards
    assert len(list((folder / "aside").iterdir())) == 1


def test_kept_batches_are_counted_with_those_that_were_halved(folder):
    assert kept_batches(folder.parent) == {"scoring": {"batches": 3, "halved": 2}}
    remove_shards(folder.parent)
    assert kept_batches(folder.parent) == {}


def test_a_full_disk_leaves_no_part_of_a_shard(tmp_path):
    import resource

    shards = Shards(tmp_path / "job", 1, "scoring")
    shards.folder.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        with pytest.raises(OSError):
            shards.keep(0, ARRAYS, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(shards.folder.iterdir())
    assert 0 not in shards
