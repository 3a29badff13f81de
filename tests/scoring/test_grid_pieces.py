"""The grid is written some documents at a time, and is the same file however it is asked for."""

import gc
import tracemalloc
from dataclasses import replace
from functools import partial

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sadi_bench.grid_file import ParquetColumns, whole_frame, write_pieces
from sadi_bench.results.report import report
from sadi_bench.scoring import frame, outcomes
from sadi_bench.scoring.bridge import SteeredLM
from sadi_bench.scoring.frame import grid_pieces, score_grid
from sadi_bench.tasks.task import load_task
from scoring.conftest import write_reviews


@pytest.fixture(scope="module")
def scored(reviews, speaker, steering):
    task, steered = reviews(), SteeredLM(speaker, steering())
    return task, steered, score_grid(task, steered)[0]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(frame, "ROWS_A_PIECE", 17)  # three documents of five cells


def written(pieces, path):
    with path.open("wb") as file:
        write_pieces(file, pieces())
    return path


def test_a_piece_is_a_row_group_of_whole_documents(scored, tmp_path):
    task, _, pieces = scored
    file = pq.ParquetFile(written(pieces, tmp_path / "grid.parquet"))
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [15, 10, 15, 15, 15]  # five select and nine test documents
    assert [set(piece.split) for piece in pieces()] == [{"select"}] * 2 + [{"test"}] * 3


def test_the_file_is_the_whole_frame_with_its_types_and_attrs(scored, tmp_path):
    *_, pieces = scored
    found = pd.read_parquet(written(pieces, tmp_path / "grid.parquet"))
    whole = whole_frame(pieces())
    assert found.attrs == whole.attrs
    assert {"parameters", "metrics", "answers"} == set(found.attrs)
    assert found.predicted.dtype == whole.predicted.dtype == "category"
    as_text = {"predicted": str}
    pd.testing.assert_frame_equal(found.astype(as_text), whole.astype(as_text), check_exact=True)


def test_the_bytes_follow_from_the_scores_alone(scored, tmp_path):
    task, steered, pieces = scored
    one = written(pieces, tmp_path / "one").read_bytes()
    again = SteeredLM(steered.lm, steered.intervention)
    other = written(score_grid(task, again)[0], tmp_path / "other").read_bytes()
    assert one == other


def test_a_report_of_the_file_is_that_of_the_frame(scored, tmp_path):
    *_, pieces = scored
    grid = ParquetColumns(written(pieces, tmp_path / "grid.parquet"))
    grids = (grid, whole_frame(pieces()))
    of_file, of_frame = (report(each, "acc", n_resamples=99) for each in grids)
    assert of_file == of_frame


def test_memory_does_not_grow_with_the_documents(reviews, speaker, steering, tmp_path, monkeypatch):
    few, many = (of_size(count, reviews, speaker, steering, tmp_path) for count in (12, 48))
    monkeypatch.setattr(frame, "ROWS_A_PIECE", 80)
    monkeypatch.setattr(outcomes, "TEXTS_KEPT", 32)  # fewer than are said
    peak(few, tmp_path / "warm")
    (traced, arrow), (traced_many, arrow_many) = (peak(p, tmp_path / "grid") for p in (few, many))
    rows = pd.read_parquet(tmp_path / "grid")
    assert len(rows) == 48 * 17
    assert traced_many - traced < 0.3 * rows.memory_usage(deep=True).sum()
    assert arrow_many < 1.2 * arrow


def of_size(count, reviews, speaker, steering, folder):
    """Score as many documents in 17 cells."""
    place = folder / str(count)
    write_reviews(place, count=2 * count + 40)
    spec = replace(reviews().spec, data_dir=str(place), n_select=count // 3)
    spec = replace(spec, n_test=count - count // 3)
    task = load_task(spec, protocol="heldout", seed=0)
    strengths = [float(strength) for strength in range(1, 9)]
    steered = SteeredLM(speaker, steering(top_k=[1, 4], strength=strengths))
    score_grid(task, steered)
    return partial(grid_pieces, task, steered)


def peak(pieces, path) -> tuple[int, int]:
    """Write a grid; return the most bytes that Python, and that Arrow, held on the way."""
    arrow = []

    def watched():
        for piece in pieces():
            yield piece
            gc.collect()
            arrow.append(pa.total_allocated_bytes())

    tracemalloc.start()
    written(watched, path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most, max(arrow)
