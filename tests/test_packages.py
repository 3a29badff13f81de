"""Packages are fetched with pip once, checked, and kept; every failure says what to do.

pip itself runs, on a package index that is a folder of this test's own.
"""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import platformdirs
import pytest

from sadi_bench.disk import cache_folder
from sadi_bench.downloads.packages import fetch_package
from sadi_bench.errors import SettingError

WHEEL = "toy_words-1.0-py3-none-any.whl"
BACKEND = """\
import os, zipfile
METADATA = "Metadata-Version: 2.1\\nName: toy-reviews\\nVersion: 1.0\\n"
def prepare_metadata_for_build_wheel(folder, settings=None):
    os.makedirs(os.path.join(folder, "toy_reviews-1.0.dist-info"))
    with open(os.path.join(folder, "toy_reviews-1.0.dist-info", "METADATA"), "w") as file:
        file.write(METADATA)
    return "toy_reviews-1.0.dist-info"
"""


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """Let pip see a wheel and an sdist in a folder, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        info = "toy_words-1.0.dist-info"
        wheel.writestr("toy_words/words.txt", "one two")
        metadata = "Metadata-Version: 2.1\nName: toy-words\nVersion: 1.0\nRequires-Dist: absent\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    metadata = "Metadata-Version: 2.1\nName: toy-reviews\nVersion: 1.0\n"
    with tarfile.open(folder / "toy-reviews-1.0.tar.gz", "w:gz") as sdist:
        for name, text in (
            ("pyproject.toml", project),
            ("backend.py", BACKEND),
            ("PKG-INFO", metadata),
        ):
            member = tarfile.TarInfo(f"toy-reviews-1.0/{name}")
            member.size = len(text)
            sdist.addfile(member, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("SADI_BENCH_CACHE", str(tmp_path / "cache"))
    return folder


def test_a_wheel_is_fetched_without_its_dependencies_and_then_kept(index, monkeypatch):
    digest = _sha256(index / WHEEL)
    path = fetch_package("toy-words==1.0", sha256=digest, binary=True)
    assert path.name == WHEEL
    assert _sha256(path) == digest
    monkeypatch.setenv("PIP_FIND_LINKS", "/no/where")
    assert fetch_package("toy-words==1.0", sha256=digest, binary=True) == path
    assert [p.name for p in (cache_folder() / "packages").iterdir()] == [digest]


def test_an_sdist_is_fetched_as_it_is(index):
    digest = _sha256(index / "toy-reviews-1.0.tar.gz")
    path = fetch_package("toy-reviews==1.0", sha256=digest, binary=False)
    assert _sha256(path) == digest


def test_a_damaged_file_in_the_cache_is_fetched_again(index):
    digest = _sha256(index / WHEEL)
    path = fetch_package("toy-words==1.0", sha256=digest, binary=True)
    path.write_bytes(b"half")
    assert _sha256(fetch_package("toy-words==1.0", sha256=digest, binary=True)) == digest


@pytest.mark.usefixtures("index")
def test_a_file_with_another_hash_is_thrown_away():
    with pytest.raises(SettingError, match=r"task=toy: .* toy-words==1\.0: .* has not the sha256"):
        fetch_package("toy-words==1.0", sha256="0" * 64, binary=True, setting="task=toy")
    assert not list(cache_folder().rglob("*.whl"))


@pytest.mark.usefixtures("index")
def test_a_package_that_cannot_be_had_names_itself_and_the_way_by_hand():
    with pytest.raises(
        SettingError, match=r"toy-absent==2\.0.*Check the network.*by hand"
    ) as caught:
        fetch_package("toy-absent==2.0", sha256="1" * 64, binary=True)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("index")
def test_a_file_put_into_the_cache_by_hand_is_taken(tmp_path):
    content = b"by hand"
    digest = hashlib.sha256(content).hexdigest()
    folder = cache_folder() / "packages" / digest
    folder.mkdir(parents=True)
    (folder / "toy.whl").write_bytes(content)
    assert fetch_package("toy-absent==2.0", sha256=digest, binary=True) == folder / "toy.whl"
    assert folder.is_relative_to(tmp_path)


def test_a_cache_that_cannot_be_written_names_its_setting(index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SADI_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(SettingError, match="set SADI_BENCH_CACHE to a folder that can be written"):
        fetch_package("toy-words==1.0", sha256=_sha256(index / WHEEL), binary=True)


def test_two_processes_at_once_both_get_the_file(index):
    digest = _sha256(index / WHEEL)
    code = (
        "from sadi_bench.downloads.packages import fetch_package\n"
        f"print(fetch_package('toy-words==1.0', sha256='{digest}', binary=True))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    paths = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(paths) == 1
    assert _sha256(Path(paths.pop())) == digest


def test_the_cache_follows_its_setting_then_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("SADI_BENCH_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("SADI_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == Path(platformdirs.user_cache_dir("sadi-bench", appauthor=False))
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "xdg" / "sadi-bench"
