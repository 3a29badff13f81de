"""What the cache keeps is checked before it is used."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from damage import flip
from sadi_bench import sealed
from sadi_bench.sealed import broken, file_broken, keep_file, kept_file, seal, set_aside

SOURCE = {"sha256": "12"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A sealed folder."""
    folder = tmp_path / "cache" / "models" / "one"
    (folder / "inner").mkdir(parents=True)
    (folder / "config.json").write_text('{"rope_theta": 10000}')
    (folder / "inner" / "weights").write_bytes(bytes(range(256)) * 8)
    seal(folder, SOURCE)
    return folder


def test_a_folder_is_whole_until_a_file_of_it_changes(folder):
    assert broken(folder, SOURCE) is None
    (folder / "config.json").write_text('{"rope_theta": 10001}')
    assert broken(folder, SOURCE).startswith(f"{folder / 'config.json'}: not what was written")


@pytest.mark.parametrize("change", ["cut", "flipped", "gone", "added", "seal", "other seal"])
def test_what_changed_is_named(folder, change):
    weights, named = folder / "inner" / "weights", folder / "inner" / "weights"
    if change == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif change == "flipped":
        flip(weights)
    elif change == "gone":
        weights.unlink()
    elif change == "added":
        named = folder / "more.json"
        named.write_text("{}")
    else:
        named = folder / "sealed.json"
        named.write_text("{" if change == "seal" else '{"files": [], "made_from": 1}')
    assert broken(folder, SOURCE).startswith(f"{named}: ")
    assert broken(folder, SOURCE, full=True).startswith(f"{named}: ")


def test_a_folder_without_a_seal_or_from_another_source_is_not_taken(folder):
    assert "made from sha256 12, not from sha256 0000" in broken(folder, {"sha256": "0000"})
    assert broken(folder) is None
    (folder / "sealed.json").unlink()
    assert broken(folder, SOURCE) == f"{folder / 'sealed.json'}: No such file or directory"
    assert broken(folder.parent / "none", SOURCE) == f"{folder.parent / 'none'}: not there"


def test_a_large_file_is_read_only_where_its_size_or_time_moved_or_all_are(folder, monkeypatch):
    monkeypatch.setattr(sealed, "SMALL", 100)
    weights = folder / "inner" / "weights"
    flip(weights)
    assert broken(folder, SOURCE) is None
    assert broken(folder, SOURCE, full=True).startswith(f"{weights}: not what was written")
    flip(weights)
    assert broken(folder, SOURCE, full=True) is None
    flip(weights, keep_time=False)
    assert broken(folder, SOURCE).startswith(f"{weights}: not what was written")


def test_a_copy_with_other_times_is_read_once_and_then_known(folder, monkeypatch):
    monkeypatch.setattr(sealed, "SMALL", 100)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    for file in copy.rglob("*"):
        os.utime(file, ns=(0, 12345))
    assert broken(copy, SOURCE) is None
    known = json.loads((copy / "sealed.json").read_text())["files"]["inner/weights"]
    assert known["mtime_ns"] == 12345
    flip(copy / "inner" / "weights")
    assert broken(copy, SOURCE) is None
    assert broken(copy, SOURCE, full=True) is not None


def test_a_kept_file_carries_its_digest_and_a_damaged_one_is_set_aside(tmp_path, caplog):
    folder = tmp_path / "judges"
    keep_file(folder, "abc", ".json", b'{"auc": 0.9}')
    keep_file(folder, "abcd", ".json", b"{}")
    path = kept_file(folder, "abc", ".json")
    assert path.read_bytes() == b'{"auc": 0.9}'
    assert file_broken(path) is None
    path.write_bytes(b'{"auc": 1.0}')
    with caplog.at_level(logging.WARNING):
        assert kept_file(folder, "abc", ".json") is None
    assert caplog.messages == [
        f"{path}: not what was written, by the SHA-256 in its name; it is made again"
    ]
    assert (tmp_path / "damaged" / f"judges-{path.name}").read_bytes() == b'{"auc": 1.0}'
    assert kept_file(folder, "abcd", ".json").read_bytes() == b"{}"


def test_who_keeps_a_file_deletes_what_a_killed_process_had_begun(tmp_path):
    (tmp_path / ".abc.json.0123.tmp").write_text("half")
    keep_file(tmp_path, "abc", ".json", b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["abc.44136fa355b3678a.json"]


def test_the_last_of_what_was_set_aside_under_a_name_stays(folder):
    for number in "12":
        folder.mkdir(exist_ok=True)
        (folder / "number").write_text(number)
        aside = set_aside(folder)
    assert aside == folder.parents[1] / "damaged" / "models-one"
    assert (aside / "number").read_text() == "2"
    assert not folder.exists()
