"""Read rows from files in a folder, or from one file, or say in one line what is missing."""

import re
from pathlib import Path

from sadi_bench.errors import SettingError
from sadi_bench.tasks.located import LocatedRow, Rows
from sadi_bench.tasks.readers import BINARY, OF_SUFFIX, file_reader
from sadi_bench.tasks.readers.lines import BrokenRow
from sadi_bench.tasks.spec import FileSource

_SLICE = re.compile(r"\[(\d*):(\d*)\]$")


def rows_of_file(origin: str, path: Path, files: FileSource) -> Rows:
    """Read one file as one pool, from which the rows to identify on are still to be taken."""
    return Rows([], _read_item(origin, files, "", [path]), carve=True)


def rows_of_files(origin: str, folder: Path, files: FileSource) -> Rows:
    """Read a task's files in `folder`; `origin` is the setting that named it, as typed."""
    expected = ", ".join(files.identify + [item for item in files.test if item])
    if not folder.is_dir():
        if not expected:
            raise SettingError(f"{origin}: no file or folder {folder}.")
        raise SettingError(f"{origin}: no folder {folder}; expected there: {expected}.")
    if not (files.test or files.identify):
        raise SettingError(
            f"{origin}: a folder, and the task names no file in it; say task.files.test=[FILE], "
            "or point to one file."
        )
    found = {item: _paths(folder, item) for item in [*files.identify, *files.stand_in, *files.test]}
    if missing := [item for item in files.test if not found[item]]:
        raise SettingError(f"{origin}: {folder} has no {', '.join(missing)}; expected: {expected}.")
    here = [item for item in files.identify if found[item]]
    absent = [item for item in files.identify if not found[item]]
    if files.identify and not here and not files.stand_in:
        raise SettingError(f"{origin}: {folder} has no {', '.join(absent)}; expected: {expected}.")
    carve = not here
    notes = []
    if carve and files.identify:
        notes.append(f"{folder} has no {', '.join(absent)}")
    elif absent:
        notes.append(f"{folder} has no {', '.join(absent)}: pairs come from {', '.join(here)}")

    def read(items: list[str]) -> list[LocatedRow]:
        return [row for item in items for row in _read_item(origin, files, item, found[item])]

    return Rows(read(files.stand_in if carve else here), read(files.test), carve, notes)


def parsed(origin: str, files: FileSource, path: Path, content: bytes) -> list[LocatedRow]:
    """Read a file's content with the task's reader, or with the one that the file's name tells."""
    name = files.reader or OF_SUFFIX.get(path.suffix)
    if name is None:
        raise SettingError(
            f"task.files.reader=null: {path} is none of {', '.join(OF_SUFFIX)}, which tell their "
            "reader; name one."
        )
    reader = file_reader(name, files.limits)
    unit = "row" if name in BINARY else "line"
    try:
        numbered = list(reader(content if name in BINARY else content.decode("utf-8-sig"), path))
    except BrokenRow as broken:
        raise SettingError(
            f"{origin}: {path} {unit} {broken.line}: expected {broken.expected}."
        ) from broken
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingError(f"{origin}: {path} line {line}: expected UTF-8 text.") from error
    return [(f"{path} {unit} {number}", row) for number, row in numbered]


def _paths(folder: Path, item: str) -> list[Path]:
    """Return the files of the first alternative of `item` that exists."""
    for pattern in _SLICE.sub("", item).split("|"):
        if found := sorted(folder.glob(pattern)):
            return found
    return []


def _read_item(origin: str, files: FileSource, item: str, paths: list[Path]) -> list[LocatedRow]:
    rows: list[LocatedRow] = []
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SettingError(f"{origin}: cannot read {path} ({error.strerror}).") from error
        rows += parsed(origin, files, path, content)
    if bounds := _SLICE.search(item):
        start, stop = (int(bound) if bound else None for bound in bounds.groups())
        rows = rows[start:stop]
    return rows
