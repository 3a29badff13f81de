"""Load rows from the hub, or say in one line what to set instead."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import datasets

from sadi_bench.downloads.hub import hub_answers, hub_silence
from sadi_bench.errors import SettingError
from sadi_bench.tasks.located import LocatedRow
from sadi_bench.tasks.quiet import quiet_libraries
from sadi_bench.tasks.readers import hub_reader
from sadi_bench.tasks.readers.lines import BrokenRow, Row
from sadi_bench.tasks.spec import HubSource, TaskSpec

LOADERS = ("arrow", "csv", "json", "parquet", "text")  # of `datasets`, for files


def hub_of(spec: TaskSpec) -> HubSource:
    """Return `spec.hub`, or the source that lm-eval's words dataset_path and *_split describe.

    As lm-eval does, it tests on the test split, else on the validation split; it identifies on the
    training split, else on the validation split that is not tested on, else on a part of the test.
    """
    given = spec.dataset_kwargs or spec.data_files or spec.dataset_name
    if not spec.dataset_path:
        if given or spec.training_split or spec.validation_split or spec.test_split:
            raise SettingError(
                "task.dataset_path: null, while other words of lm-eval's say what it holds; say "
                "task.dataset_path=json (or csv, parquet, text, or a repository of the hub)."
            )
        return spec.hub
    if spec.hub.path:
        raise SettingError(
            f"task.dataset_path={spec.dataset_path}: task.hub.path={spec.hub.path} says the same; "
            "keep one of them."
        )
    test = spec.test_split or spec.validation_split
    if not test:
        raise SettingError("task.test_split: null; name the split to test on, test for instance.")
    identify = spec.training_split or (spec.validation_split if spec.test_split else None)
    kwargs = dict(spec.dataset_kwargs)
    if spec.data_files:
        kwargs["data_files"] = spec.data_files
    splits = [identify] if identify else []
    return HubSource(
        spec.dataset_path, spec.dataset_name, identify=splits, test=[test], kwargs=kwargs
    )


def hub_rows(task: str, source: HubSource, splits: list[str]) -> list[LocatedRow]:
    """Return every row of `splits`, in the hub's order."""
    rows = []
    if not source.path:
        raise SettingError(
            f"task={task}: it is not on the hub; point task.data_dir or SADI_BENCH_DATA to the "
            "original files."
        )
    if not splits:
        return rows
    local = _is_local(source)
    with quiet_libraries(), _offline() if local else patient_only_with_a_hub():
        for split in splits:
            try:
                loaded = datasets.load_dataset(
                    source.path, source.name, split=split, **source.kwargs
                )
            except Exception as error:  # of `datasets`, the hub's client or its HTTP library
                unread = _unreadable if local else _unavailable
                raise unread(task, source, split, error) from error
            numbered = _read(task, source, split, loaded) if source.reader else _as_they_are(loaded)
            rows += [(f"{_place(source, split)} row {number}", row) for number, row in numbered]
    return rows


def _is_local(source: HubSource) -> bool:
    """Tell whether all rows are in files here, which `datasets` has a loader for."""
    files = source.kwargs.get("data_files")
    return source.path in LOADERS and files is not None and "://" not in str(files)


def _place(source: HubSource, split: str) -> str:
    files = source.kwargs.get("data_files")
    file = files.get(split) if isinstance(files, dict) else files
    return file if isinstance(file, str) else f"{source.path} {split}"


def _as_they_are(loaded: datasets.Dataset) -> list[tuple[int, Row]]:
    return list(enumerate(loaded.to_list()))


def _read(
    task: str, source: HubSource, split: str, loaded: datasets.Dataset
) -> list[tuple[int, Row]]:
    """Give our columns to rows that have others; one at a time, for they may be wide."""
    reader = hub_reader(str(source.reader), source.limits)
    try:
        return list(reader(split, loaded))
    except BrokenRow as broken:
        raise SettingError(
            f"task={task}: {source.path} {split} row {broken.line}: expected {broken.expected}."
        ) from broken


@contextmanager
def _offline() -> Iterator[None]:
    """Let `datasets` look for nothing on the hub."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def patient_only_with_a_hub() -> Iterator[None]:
    """Let `datasets` look only into local files and its cache where the hub does not answer.

    It would retry for some 25 s per split first.
    """
    with nullcontext() if datasets.config.HF_HUB_OFFLINE or hub_answers() else _offline():
        yield


def hub_reason(error: Exception) -> str:
    """Return the first line of an error of the hub, in words that fit why it happened."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if "OfflineModeIsEnabled" in reason:
        return f"{hub_silence()}, and the data is not in the local cache"
    return reason


def _unreadable(task: str, source: HubSource, split: str, error: Exception) -> SettingError:
    """Name the cause: `datasets` says of a broken file only that generating a dataset failed."""
    reason = hub_reason(error.__cause__ or error)
    return SettingError(
        f"task={task}: the {split} split of task.data_files ({source.path}) cannot be read: "
        f"{reason}. Relative paths start from {Path.cwd()}."
    )


def _unavailable(task: str, source: HubSource, split: str, error: Exception) -> SettingError:
    config = f", {source.name}" if source.name else ""
    token = "" if os.environ.get("HF_TOKEN") else "set HF_TOKEN if it is gated, "
    return SettingError(
        f"task={task}: the hub did not give {source.path}{config} ({split}): "
        f"{hub_reason(error)}. Point task.data_dir or SADI_BENCH_DATA to the original files, "
        f"{token}or try task=movie_reviews, which needs no hub."
    )
