"""The paper's tables as files: where they go, and what they never take the place of."""

from pathlib import Path

import pandas as pd
import pytest

from sadi_bench.errors import SettingError
from sadi_bench.results.paper.write_tables import write_tables
from terminal import small_run, write_rows
from text_runs import stand_alone

NAMES = {f"table{number}-tiny-random.{kind}" for number in (1, 5, 9) for kind in ("csv", "md")}
FEWER = "task.n_test=5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_rows(folder / "boolq")
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    stand_alone(folder, monkeypatch)


def runs_of(folder: Path, name: str, *settings: str) -> Path:
    """Make SADI's run and the unsteered one, chosen as the paper chooses, in a folder of runs."""
    runs = folder / name
    for more in (("method.top_k=2", "method.strength=5"), ("method=none",)):
        assert small_run(folder, *more, "select_by=paper", f"runs_dir={runs}", *settings).code == 0
    return runs


@pytest.fixture(scope="module")
def runs(folder) -> Path:
    return runs_of(folder, "runs")


@pytest.fixture(scope="module")
def fewer(folder) -> Path:
    return runs_of(folder, "fewer", FEWER)


def rows_of(file: Path) -> pd.DataFrame:
    rows = pd.read_csv(file)
    return rows[rows["runs"].notna()]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_tables_go_beside_the_runs_and_are_no_run(runs):
    for _ in range(2):
        said = write_tables(runs)
        assert [line.partition(": ")[0] for line in said] == [
            str(runs / "tables" / name) for name in sorted(NAMES) if name.endswith(".md")
        ]
        assert {file.name for file in (runs / "tables").iterdir()} == NAMES
    assert said[0].endswith("table1-tiny-random.md: 2 runs, 64 missing")


def test_a_row_is_the_run_that_was_measured(runs, tmp_path):
    write_tables(runs, tmp_path)
    rows = rows_of(tmp_path / "table1-tiny-random.csv")
    assert rows[["task", "method", "n", "n_runs"]].to_numpy().tolist() == [
        ["boolq", "baseline", 6, 1],
        ["boolq", "sadi-head", 6, 1],
    ]
    assert {*rows["runs"]} == {path.name for path in runs.iterdir()} - {"tables"}
    text = (tmp_path / "table1-tiny-random.md").read_text()
    assert text.startswith("# Table 1, tiny-random\n\n2 runs; pairs / select / test: 8 / 6 / 6; ")


def test_missing_rows_say_the_options_that_are_handed_over(runs, tmp_path):
    write_tables(runs, tmp_path, options="task.n_test=9")
    commands = pd.read_csv(tmp_path / "table1-tiny-random.csv")["command"].dropna()
    assert commands.str.endswith(" task.n_test=9").all()
    assert (
        "make table1 MODEL=tiny-random LIMIT=9" in (tmp_path / "table1-tiny-random.md").read_text()
    )


def test_a_table_of_more_documents_is_not_replaced(runs, fewer, tmp_path):
    write_tables(runs, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(SettingError) as refused:
        write_tables(fewer, tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}/table1-tiny-random.md: not replaced: its row boolq baseline 0 paper_match has "
        "6 test documents, these runs 5 (as in 1 other rows); delete the file and its .csv, or "
        "measure as many. (So are 2 other files.)"
    )
    assert contents(tmp_path) == before


def test_the_other_tables_are_written_and_the_one_that_is_kept_is_said(runs, fewer, tmp_path):
    write_tables(runs, tmp_path)
    for file in tmp_path.glob("table9*"):
        file.unlink()
    kept, _, written = write_tables(fewer, tmp_path)
    assert "table1-tiny-random.md: not replaced: " in kept
    assert written == f"{tmp_path}/table9-tiny-random.md: 1 runs"
    assert [*rows_of(tmp_path / "table1-tiny-random.csv")["n"]] == [6, 6]


def test_a_table_that_would_lose_a_measured_row_is_not_replaced(runs, tmp_path):
    write_tables(runs, tmp_path)
    unsteered = rows_of(tmp_path / "table1-tiny-random.csv")["runs"].iloc[0]
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / unsteered).symlink_to(runs / unsteered)
    kept, _, written = write_tables(tmp_path / "one", tmp_path)
    assert "boolq sadi-head 0 paper_match has 6 test documents, these runs 0; delete" in kept
    assert "table9" in written  # it has no other row than the unsteered run's


def test_more_documents_take_the_place_of_fewer(runs, fewer, tmp_path):
    write_tables(fewer, tmp_path)
    write_tables(runs, tmp_path)
    assert [*rows_of(tmp_path / "table1-tiny-random.csv")["n"]] == [6, 6]


def test_a_file_that_is_no_table_is_not_replaced(runs, tmp_path):
    for text in ("", "a,b\n1,2\n"):
        (tmp_path / "table1-tiny-random.csv").write_text(text)
        kept, *_ = write_tables(runs, tmp_path)
        assert "not replaced: it is not a table of this program; delete it" in kept
        assert (tmp_path / "table1-tiny-random.csv").read_text() == text


def test_runs_of_one_model_alone_are_written_and_an_unknown_one_is_refused(runs, tmp_path):
    write_tables(runs, tmp_path, model="tiny-random")
    assert {file.name for file in tmp_path.iterdir()} == NAMES
    with pytest.raises(SettingError, match="model=tiny: unknown. Did you mean tiny-random"):
        write_tables(runs, tmp_path, model="tiny")


def test_nothing_to_write_is_refused_with_what_to_do(folder, tmp_path):
    with pytest.raises(SettingError, match=f"runs_dir={tmp_path}: no finished run there"):
        write_tables(tmp_path)
    runs = runs_of(folder, "chosen by acc", "select_by=acc")
    with pytest.raises(SettingError, match="no table of the paper has a row for its 2 runs"):
        write_tables(runs)
    assert not (runs / "tables").exists()


def test_a_place_that_is_no_folder_is_refused_by_its_setting(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="cannot be written: .* or set to=… to a folder"):
        write_tables(runs, tmp_path / "file")
