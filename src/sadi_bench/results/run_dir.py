"""A run directory: every file whole or absent, `result.json` last.

Open it with `writing_run(runs_dir, identifier)`, write the files, call `finish(result)`; read it
back with `reading.load_run(path)`. What a judge says later is added: the run stays finished.

A finished run that is computed again, or judged, stays as it is until the new one is whole:

    1. new files go into .new-XXXX/, its result.json last    killed here: the old run stands
    2. what the new run does not have is deleted, its own
       files are moved up, result.json last                  killed here: whoever opens it goes on
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pandas as pd
from filelock import Timeout

from sadi_bench.disk import held, sha256, sync, written_aside
from sadi_bench.errors import SettingError
from sadi_bench.grid_file import ParquetColumns, write_pieces
from sadi_bench.results.strict_json import json_bytes
from sadi_bench.sealed import delete_temporary

CONFIG = "config.yaml"
PAIRS = "pairs.jsonl"
DOCS = "docs.jsonl"
ELEMENTS = "elements.csv"
GRID = "grid.parquet"
STEERING = "steering.safetensors"
TEXTS = "generations.jsonl"
RESULT = "result.json"
LOG = "log.txt"
ALSO = "also-{}.parquet"
"""The scores on another task, by its name."""
LOCK = ".lock"
STAGED = ".new-"
"""How folders begin that hold the new files of a finished run."""
DATA_FILES = (CONFIG, PAIRS, DOCS, ELEMENTS, GRID, STEERING, TEXTS)
DECISIONS = "judged-{}.jsonl"
"""A judge's decisions, by its kind."""


def is_complete(path: str | os.PathLike) -> bool:
    """Say whether the run at `path` was finished: only then is there a result.json."""
    return (Path(path) / RESULT).is_file()


def run_folder(name: str, runs_dir: str | os.PathLike) -> Path:
    """Find a run: a folder, or the name of one in `runs_dir`; a finished one is preferred."""
    place, inside = Path(name).expanduser(), Path(runs_dir).expanduser() / name
    unfinished = place.is_dir() and not is_complete(inside)
    return place if is_complete(place) or unfinished else inside


@contextmanager
def writing_run(runs_dir: str | os.PathLike, identifier: str) -> Iterator["RunDir"]:
    """Open a run directory for writing, alone; what an interrupted run left is cleared away.

    A finished run stays finished, and as it is, until `finish`.

    Raises:
        SettingError: the folder cannot be made, or another process is writing this run.
    """
    path = Path(runs_dir) / identifier
    with write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with write_errors(path):
            try:
                locked = stack.enter_context(held(path / LOCK))
            except Timeout:  # an OSError: not for `write_errors`
                busy = "another process is computing this very run; wait until it is done"
                raise SettingError(f"{path}: {busy}, or set runs_dir=… elsewhere.") from None
            _move_all(path)
            if locked:  # nobody else writes here: a killed process left these
                _clear(path)
        place = path / f"{STAGED}{secrets.token_hex(4)}" if is_complete(path) else path
        try:
            yield RunDir(path, place)
        finally:
            if place != path and not (place / RESULT).exists():
                shutil.rmtree(place, ignore_errors=True)


def settle(path: Path) -> None:
    """Move a finished run's files into place, where a process was killed while it did so.

    Raises:
        SettingError: the run's folder cannot be written.
    """
    if any(path.glob(f"{STAGED}*/{RESULT}")):
        with write_errors(path), held(path / LOCK, wait=lambda: None):
            _move_all(path)


@dataclass(frozen=True)
class RunDir:
    """Writes the files of one run, each by rename; get one from `writing_run`.

    Files are written into `place`: the run's own `path`, or a folder in it where `path` has a
    finished run.
    """

    path: Path
    place: Path

    @property
    def log_path(self) -> Path:
        """Where the log of the run goes."""
        return self.path / LOG

    def write_config(self, text: str) -> None:
        """Write the resolved config, YAML text."""
        self._write(CONFIG, text.encode())

    def write_pairs(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Write the contrastive pairs, one JSON object a line."""
        self._write_lines(PAIRS, rows)

    def write_docs(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Write the scored documents, one JSON object a line."""
        self._write_lines(DOCS, rows)

    def write_texts(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Write what the model wrote, one JSON object a document × cell."""
        self._write_lines(TEXTS, rows)

    def write_elements(self, elements: pd.DataFrame) -> None:
        """Write the ranked elements; floats keep all their digits."""
        self._write(ELEMENTS, elements.to_csv(index=False, lineterminator="\n").encode())

    def write_grid(self, pieces: Iterable[pd.DataFrame]) -> None:
        """Write the scores of every split × doc_id × cell, piece by piece."""
        with self._writing(GRID) as file:
            write_pieces(file, pieces)

    @property
    def grid(self) -> ParquetColumns:
        """The scores that were written, to be read a column at a time."""
        return ParquetColumns(self.place / GRID)

    def write_also(self, task: str, pieces: Iterable[pd.DataFrame]) -> None:
        """Write the scores of the chosen cell on another task."""
        with self._writing(ALSO.format(task)) as file:
            write_pieces(file, pieces)

    def write_steering(self, content: bytes) -> None:
        """Write what was learnt, the bytes of a safetensors file."""
        self._write(STEERING, content)

    def finish(self, result: Mapping[str, object]) -> None:
        """Write result.json, which makes the run complete.

        Adds `sadi_bench.files`: the SHA-256 of every file written, so that a file that was cut
        off or exchanged afterwards is found out when the run is loaded.
        """
        written = {file.name: sha256(file) for file in _data_files(self.place)}
        self._finish(_with_files(result, written))

    def add_judged(
        self, kind: str, rows: Iterable[Mapping[str, object]], result: Mapping[str, object]
    ) -> None:
        """Add a judge's decisions, and result.json anew; a finished run stays finished."""
        name = DECISIONS.format(kind)
        self._write_lines(name, rows)
        digest = {name: sha256(self.place / name)}
        self._finish(_with_files(result, result["sadi_bench"]["files"] | digest))

    def _write(self, name: str, content: bytes) -> None:
        with self._writing(name) as file:
            file.write(content)

    def _write_lines(self, name: str, rows: Iterable[Mapping[str, object]]) -> None:
        with self._writing(name) as file:
            for row in rows:
                file.write(_json_line(row))

    @contextmanager
    def _writing(self, name: str) -> Iterator[BinaryIO]:
        """Open a file of the run, which takes its place when it is whole."""
        with write_errors(self.path / name):
            self.place.mkdir(exist_ok=True)
            with written_aside(self.place / name) as file:
                yield file

    def _finish(self, result: bytes) -> None:
        self._write(RESULT, result)
        if self.place != self.path:
            with write_errors(self.path):
                _move(self.place, self.path)


def _move_all(path: Path) -> None:
    for result in sorted(path.glob(f"{STAGED}*/{RESULT}")):
        _move(result.parent, path)


def _move(place: Path, path: Path) -> None:
    """Let a new run, which is whole, take the place of the old one; can be done again at any point.

    A file that is not there was moved before.
    """
    files = json.loads((place / RESULT).read_bytes())["sadi_bench"]["files"]
    for old in [*_data_files(path), *path.glob(DECISIONS.format("*"))]:
        if old.name not in files:
            old.unlink(missing_ok=True)
    for name in [*files, RESULT]:
        if name == RESULT:
            sync(path)  # the other files first
        with suppress(FileNotFoundError):
            os.replace(place / name, path / name)
    sync(path)
    shutil.rmtree(place, ignore_errors=True)


def _clear(path: Path) -> None:
    delete_temporary(path)
    for place in path.glob(f"{STAGED}*"):
        shutil.rmtree(place, ignore_errors=True)
    if not is_complete(path):
        for file in _data_files(path):
            file.unlink()


def _data_files(folder: Path) -> list[Path]:
    named = [folder / name for name in DATA_FILES]
    return [file for file in named if file.is_file()] + sorted(folder.glob(ALSO.format("*")))


def _with_files(result: Mapping[str, object], files: Mapping[str, str]) -> bytes:
    ours = {**result.get("sadi_bench", {}), "files": files}
    return json_bytes({**result, "sadi_bench": ours}) + b"\n"


def _json_line(row: Mapping[str, object]) -> bytes:
    return json_bytes(row, indent=None) + b"\n"


@contextmanager
def write_errors(path: Path, setting: str = "runs_dir") -> Iterator[None]:
    """Turn a full disk, a quota, a read-only or forbidden place into one line for the user.

    `setting` names what chooses the place.
    """
    try:
        yield
    except OSError as error:
        raise SettingError(
            f"{path}: cannot be written: {error.strerror or error}. The files written before it "
            f"are kept. Free some space there, or set {setting}=… to a folder you can write to."
        ) from error
