"""Load rows from the hub, or say in one line what to set instead."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import datasets

from sadi_bench.downloads.hub import hub_answers, hub_silence
from sadi_bench.errors import SettingError
from sadi_bench.tasks.quiet import quiet_libraries
from sadi_bench.tasks.readers import HUB_READERS, chosen_reader
from sadi_bench.tasks.records import BrokenRow, Row
from sadi_bench.tasks.spec import HubSource


def hub_rows(task: str, source: HubSource, splits: list[str]) -> list[tuple[str, Row]]:
    """Return (where, row) for every row of `splits`, in the hub's order."""
    rows = []
    if not source.path:
        raise SettingError(
            f"task={task}: it is not on the hub; point task.data_dir or SADI_BENCH_DATA to the "
            "original files."
        )
    for split in splits:
        try:
            with quiet_libraries(), patient_only_with_a_hub():
                loaded = datasets.load_dataset(source.path, source.name, split=split)
        except Exception as error:  # of `datasets`, the hub's client or its HTTP library: any kind
            raise _unavailable(task, source, split, error) from error
        numbered = _read(task, source, split, loaded) if source.reader else _as_they_are(loaded)
        rows += [(f"{source.path} {split} row {number}", row) for number, row in numbered]
    return rows


def _as_they_are(loaded: datasets.Dataset) -> list[tuple[int, Row]]:
    return list(enumerate(loaded.to_list()))


def _read(
    task: str, source: HubSource, split: str, loaded: datasets.Dataset
) -> list[tuple[int, Row]]:
    """Give our columns to rows that have others; one at a time, for they may be wide."""
    reader = chosen_reader("task.hub", HUB_READERS, str(source.reader), source.limits)
    try:
        return list(reader(split, loaded))
    except BrokenRow as broken:
        raise SettingError(
            f"task={task}: {source.path} {split} row {broken.line}: expected {broken.expected}."
        ) from broken


@contextmanager
def patient_only_with_a_hub() -> Iterator[None]:
    """Let `datasets` look only into local files and its cache where the hub does not answer.

    It would retry for some 25 s per split first.
    """
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or not hub_answers()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def hub_reason(error: Exception) -> str:
    """Return the first line of an error of the hub, in words that fit why it happened."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if "OfflineModeIsEnabled" in reason:
        return f"{hub_silence()}, and the data is not in the local cache"
    return reason


def _unavailable(task: str, source: HubSource, split: str, error: Exception) -> SettingError:
    config = f", {source.name}" if source.name else ""
    token = "" if os.environ.get("HF_TOKEN") else "set HF_TOKEN if it is gated, "
    return SettingError(
        f"task={task}: the hub did not give {source.path}{config} ({split}): "
        f"{hub_reason(error)}. Point task.data_dir or SADI_BENCH_DATA to the original files, "
        f"{token}or try task=movie_reviews, which needs no hub."
    )
