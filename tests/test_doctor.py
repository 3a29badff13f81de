"""`sadi-bench doctor` reads every file of the cache and of finished runs."""

from pathlib import Path

import pytest

from damage import flip
from sadi_bench import sealed
from sadi_bench.sealed import keep_file, seal
from terminal import command, place_of_runs, small_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    yield from place_of_runs(tmp_path_factory.mktemp("doctor"))


def doctor(folder: Path):
    return command("doctor", f"runs_dir={folder / 'runs'}")


def test_it_names_what_is_wrong_and_sets_it_aside(folder, monkeypatch):
    monkeypatch.setattr(sealed, "SMALL", 10)
    cache, run = folder / "cache", small_run(folder).path
    for part in ("models", "finetuned"):
        for name in ("whole", "wrong"):
            (cache / part / name).mkdir(parents=True)
            (cache / part / name / "weights").write_bytes(bytes(100))
            seal(cache / part / name, {})
    keep_file(cache / "judges", "whole", ".json", b"{}")
    keep_file(cache / "judges", "wrong", ".json", b"[]")
    (judge,) = (cache / "judges").glob("wrong.*")
    package = cache / "packages" / ("0" * 64)
    package.mkdir(parents=True)
    (package / "file.whl").write_text("")
    (cache / "finetuned" / "half.partial").mkdir()
    assert doctor(folder).code == 1  # the package
    assert not package.exists()
    fine = doctor(folder)
    assert (fine.code, fine.out) == (0, f"{cache} and {folder / 'runs'}: nothing is wrong\n")

    wrong = [cache / "models" / "wrong" / "weights", cache / "finetuned" / "wrong" / "weights",
             judge, run / "grid.parquet"]  # fmt: skip
    for path in wrong:
        flip(path)
    found = doctor(folder)
    assert (found.code, found.err) == (1, "")
    lines = found.out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == list(map(str, wrong))
    assert all("it is made again when it is needed" in line for line in lines[:3])
    assert "Compute the run again with force=true." in lines[3]
    assert [path.exists() for path in wrong] == [False, False, False, True]
    assert {path.name for path in (cache / "damaged").iterdir()} >= {
        "models-wrong",
        "finetuned-wrong",
        f"judges-{judge.name}",
    }
    assert (cache / "models" / "whole").is_dir()
    assert (cache / "finetuned" / "half.partial").is_dir()
    assert small_run(folder, "force=true").code == 0
    assert doctor(folder).code == 0
    assert "MB freed" in command("cache", "prune", "damaged").out
    assert not (cache / "damaged").exists()


def test_the_next_run_deletes_what_killed_ones_left_in_the_cache(folder):
    cache = folder / "cache"
    left = [cache / name for name in ("models/one.scratch", "packages/download-1", "models/tmp1")]
    for place in left:
        place.mkdir(parents=True)
        (place / "half").write_text("")
    (cache / "activations").mkdir(exist_ok=True)
    (cache / "activations" / ".a.tmp").write_text("")
    small_run(folder, "force=true")
    assert not [place for place in left if place.exists()]
    assert not list((cache / "activations").glob(".*"))
