"""A run directory: every file whole or absent, `result.json` last.

Open it with `writing_run(runs_dir, identifier)`, write the files, call `finish(result)`; read it
back with `loading.load_run(path)`. What a judge says later is added: the run stays finished.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pandas as pd
from filelock import Timeout

from sadi_bench.disk import held, sha256, write_atomically, written_aside
from sadi_bench.errors import SettingError
from sadi_bench.grid_file import ParquetColumns, write_pieces
from sadi_bench.results.strict_json import json_bytes

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
    """Open a run directory for writing, alone; what an interrupted run left is reused.

    A finished run stays finished until its first file is written again.

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
                raise SettingError(
                    f"{path}: another process is computing this very run; wait until it is done, "
                    "or set runs_dir=… to another folder."
                ) from None
        # Nobody else writes here, so these are what a killed process left.
        for leftover in path.glob(".*.tmp") if locked else ():
            with suppress(OSError):
                leftover.unlink()
        yield RunDir(path)


@dataclass(frozen=True)
class RunDir:
    """Writes the files of one run, each by rename; get one from `writing_run`."""

    path: Path

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
        return ParquetColumns(self.path / GRID)

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
        written = [name for name in DATA_FILES if (self.path / name).is_file()]
        written += sorted(file.name for file in self.path.glob(ALSO.format("*")))
        self._put(
            {RESULT: _with_files(result, {name: sha256(self.path / name) for name in written})}
        )

    def add_judged(
        self, kind: str, rows: Iterable[Mapping[str, object]], result: Mapping[str, object]
    ) -> None:
        """Add a judge's decisions, and result.json anew; a finished run stays finished."""
        name, content = DECISIONS.format(kind), b"".join(map(_json_line, rows))
        files = result["sadi_bench"]["files"] | {name: hashlib.sha256(content).hexdigest()}
        self._put({name: content, RESULT: _with_files(result, files)})

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
            # From here on the old result, and its judges, no longer describe what lies beside them.
            (self.path / RESULT).unlink(missing_ok=True)
            for judged in self.path.glob(DECISIONS.format("*")):
                judged.unlink()
            with written_aside(self.path / name) as file:
                yield file

    def _put(self, contents: Mapping[str, bytes]) -> None:
        with write_errors(self.path / next(iter(contents))):
            write_atomically({self.path / name: content for name, content in contents.items()})


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
