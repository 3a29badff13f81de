"""Rows come from task.data_dir, else $SADI_BENCH_DATA, else the hub: the same rows from each."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time

import datasets
import pytest
from hub_stand_in import hub_folder

from sadi_bench.errors import SettingError
from sadi_bench.tasks.sources import read_rows


def values(located) -> list[dict]:
    return [row for _, row in located]


def test_the_hub_and_the_files_give_the_same_rows(compose_task, own_task, tmp_path):
    files = read_rows(own_task("copa"))
    # The hub's copy has a column more and another order of columns.
    as_on_hub = {
        "train": [{"mirrored": row["id"] > 1000, **row} for row in values(files.identify)],
        "test": [{"mirrored": False, **row} for row in values(files.test)],
    }
    folder = hub_folder(tmp_path, "default", as_on_hub)
    hub = read_rows(compose_task("copa", f"task.hub.path={folder}"))
    assert values(hub.identify) == values(files.identify)
    assert values(hub.test) == values(files.test)


def test_hub_configs_and_renamed_columns_are_followed(compose_task, own_task, tmp_path):
    files = read_rows(own_task("xcopa_it"))
    rows = {
        split: [{"idx": row["id"], **{k: row[k] for k in row if k != "id"}} for row in pool]
        for split, pool in (("validation", values(files.identify)), ("test", values(files.test)))
    }
    folder = hub_folder(tmp_path, "it", rows)
    hub = read_rows(compose_task("xcopa_it", f"task.hub.path={folder}"))
    assert values(hub.identify) == values(files.identify)
    assert values(hub.test) == values(files.test)


def test_an_unlabelled_hub_row_is_refused(compose_task, own_task, tmp_path):
    from sadi_bench.tasks.task import load_task

    rows = values(read_rows(own_task("copa")).identify)
    unlabelled = [{**row, "label": -1, "premise": "New."} for row in rows]
    folder = hub_folder(tmp_path, "default", {"train": rows, "test": unlabelled})
    spec = compose_task("copa", f"task.hub.path={folder}")
    with pytest.raises(SettingError, match=r"test row 0: the right answer -1 is none of"):
        load_task(spec, protocol="heldout", seed=0)


def test_data_dir_wins_over_the_environment(compose_task, data_dir, tmp_path, monkeypatch):
    folder = data_dir("copa")
    monkeypatch.setenv("SADI_BENCH_DATA", str(tmp_path / "nowhere"))
    assert read_rows(compose_task("copa", f"task.data_dir={folder}")).test
    monkeypatch.setenv("SADI_BENCH_DATA", str(folder.parent))
    assert read_rows(compose_task("copa")).test


def test_a_missing_folder_or_file_names_the_setting_and_what_was_expected(
    compose_task, data_dir, tmp_path, monkeypatch
):
    with pytest.raises(SettingError, match=r"task\.data_dir=/no/where: .*copa-test\.xml"):
        read_rows(compose_task("copa", "task.data_dir=/no/where"))
    monkeypatch.setenv("SADI_BENCH_DATA", str(tmp_path))
    with pytest.raises(SettingError, match=r"SADI_BENCH_DATA=.*no folder .*copa; expected"):
        read_rows(compose_task("copa"))
    (data_dir("copa") / "copa-test.xml").unlink()
    with pytest.raises(SettingError, match=r"task\.data_dir=.* has no copa-test\.xml"):
        read_rows(compose_task("copa", f"task.data_dir={data_dir('copa')}"))


def test_a_broken_row_names_its_file_line_and_what_was_expected(compose_task, data_dir):
    folder = data_dir("winogrande")
    with (folder / "dev.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(SettingError, match=r"dev\.jsonl line 9: expected one JSON object a line"):
        read_rows(compose_task("winogrande", f"task.data_dir={folder}"))


@pytest.mark.parametrize("broken", [{"option2": " "}, {"option2": None}])
def test_an_empty_or_missing_text_names_its_file_and_line(compose_task, data_dir, broken):
    folder = data_dir("winogrande")
    row = {"sentence": "s _", "option1": "x", "option2": "y", "answer": "1", **broken}
    with (folder / "dev.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(SettingError, match=r"dev\.jsonl line 9: .* for option2"):
        read_rows(compose_task("winogrande", f"task.data_dir={folder}"))


def test_a_file_that_is_not_utf8_names_its_line(compose_task, data_dir):
    folder = data_dir("sst2")
    with (folder / "stsa.binary.test").open("ab") as file:
        file.write(b"1 caf\xe9\n")
    with pytest.raises(SettingError, match=r"stsa\.binary\.test line 9: expected UTF-8"):
        read_rows(compose_task("sst2", f"task.data_dir={folder}"))


def test_trees_are_read_where_the_sst_lines_are_missing(compose_task, tmp_path):
    (tmp_path / "trees").mkdir()
    (tmp_path / "trees" / "train.txt").write_text("(4 (2 Very) (3 good))\n")
    (tmp_path / "trees" / "test.txt").write_text("(0 (2 Very) (1 bad))\n")
    rows = read_rows(compose_task("sst5", f"task.data_dir={tmp_path}"))
    assert values(rows.identify) == [{"text": "very good", "label": 4}]


def test_mmlu_rows_carry_their_subject(own_task):
    rows = read_rows(own_task("mmlu"))
    assert {row["subject"] for row in values(rows.test)} == {"anatomy", "sociology"}
    assert any("val/*_val.csv" in note for note in rows.notes)


def test_english_pairs_come_from_balanced_copa(compose_task, data_dir):
    data_dir("copa")
    folder = data_dir("xcopa_it")
    rows = read_rows(compose_task("xcopa_it", f"task.data_dir={folder}", "task.pairs_from=english"))
    assert {row["premise"].split()[0] for row in values(rows.identify)} == {"Premise", "Twin"}
    assert all(row["premise"].startswith("Premessa") for row in values(rows.test))


def test_english_pairs_of_a_task_without_them_are_refused(own_task):
    with pytest.raises(SettingError, match=r"task\.pairs_from=english: copa has no English rows"):
        read_rows(own_task("copa", "task.pairs_from=english"))


def test_an_offline_hub_says_what_to_set_instead(compose_task, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(SettingError) as caught:
        read_rows(compose_task("boolq"))
    message = str(caught.value)
    assert "\n" not in message
    for remedy in ("google/boolq", "task.data_dir", "SADI_BENCH_DATA", "task=movie_reviews"):
        assert remedy in message


def test_an_unknown_split_of_the_hub_is_one_line_too(compose_task, own_task, tmp_path):
    rows = values(read_rows(own_task("copa")).test)
    folder = hub_folder(tmp_path, "default", {"train": rows, "test": rows})
    with pytest.raises(SettingError, match=r"did not give .*\(dev\)"):
        read_rows(compose_task("copa", f"task.hub.path={folder}", "task.hub.identify=[dev]"))


def test_an_unreachable_hub_fails_without_retrying():
    code = (
        "from sadi_bench.tasks.spec import HubSource\n"
        "from sadi_bench.tasks.hub_rows import hub_rows\n"
        "from sadi_bench.errors import SettingError\n"
        "try: hub_rows('boolq', HubSource(path='google/boolq'), ['train'])\n"
        "except SettingError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    start = time.monotonic()
    finished = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert time.monotonic() - start < 20  # five retries alone take 23 s
    assert "http://127.0.0.1:9 does not answer" in finished.stdout
    assert "Retrying" not in finished.stderr


def _archive(path, name: str, content: bytes) -> bytes:
    with tarfile.open(path, "w:gz") as members:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        members.addfile(member, io.BytesIO(content))
    return path.read_bytes()


def test_the_embedded_data_is_read_out_of_its_archives_even_where_a_data_folder_is_set(
    compose_task, data_dir, tmp_path, monkeypatch
):
    folder = data_dir("movie_reviews")
    content = (folder / "movieReviewSnippets_GroundTruth.txt").read_bytes()
    inner_name = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    inner = _archive(tmp_path / "inner", inner_name, content)
    outer = _archive(tmp_path / "outer", "any/x/hutto_ICWSM_2014.tar.gz", inner)
    digest = hashlib.sha256(outer).hexdigest()
    kept = tmp_path / "cache" / "packages" / digest
    kept.mkdir(parents=True)
    (kept / "toy.tar.gz").write_bytes(outer)
    monkeypatch.setenv("SADI_BENCH_DATA", str(tmp_path / "inner"))
    embedded = read_rows(compose_task("movie_reviews", f"task.package.sha256={digest}"))
    files = read_rows(compose_task("movie_reviews", f"task.data_dir={folder}"))
    assert values(embedded.test) == values(files.test)
    assert embedded.carve
    spec = compose_task("movie_reviews", f"task.package.sha256={digest}")
    spec.package.members[1] = "*/absent.txt"
    with pytest.raises(SettingError, match=r"no \*/absent\.txt in the archive"):
        read_rows(spec)
