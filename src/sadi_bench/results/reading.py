"""Read a finished run directory back."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import yaml
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sadi_bench.disk import sha256
from sadi_bench.errors import SettingError
from sadi_bench.grid_file import Columns, ParquetColumns
from sadi_bench.results.run_dir import (
    CONFIG,
    DECISIONS,
    DOCS,
    ELEMENTS,
    GRID,
    PAIRS,
    RESULT,
    STEERING,
    TEXTS,
    is_complete,
    settle,
)

if TYPE_CHECKING:
    from sadi_bench.steering.intervention import Intervention

REPORTED = ("protocols", "cells", "answers", "diagnosis", "also")
Found = TypeVar("Found")
TEXT_KEY = ("split", "doc_id", "cell")
"""What names a text within its run."""


@dataclass(frozen=True)
class Run:
    """A finished run as its files tell it.

    `config` is YAML text. What a method does not have (the unsteered model has no elements and no
    steering) is empty, and so are the texts of a task that asks for none. `columns` are the grid's,
    each read when it is asked for. What judges said of a text stands under its key `judged`, by
    the judge's kind.
    """

    path: Path
    config: str
    pairs: list[dict[str, object]]
    docs: list[dict[str, object]]
    texts: list[dict[str, object]]
    elements: pd.DataFrame
    columns: Columns
    result: dict[str, Any]

    @cached_property
    def grid(self) -> pd.DataFrame:
        """All scores: a row a split × document × cell."""
        return self._scores(pd.read_parquet)

    def rows(self, split: str, cells: Sequence[int]) -> pd.DataFrame:
        """Read the scores of some cells on one split."""
        some = [("split", "==", split), ("cell", "in", cells)]
        return self._scores(partial(pd.read_parquet, filters=some))

    @cached_property
    def steering(self) -> "Intervention":
        """What was learnt, ready to be applied."""
        from sadi_bench.steering.intervention import Intervention  # imports torch

        return Intervention.load(self.path)

    @cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """The tensors of steering.safetensors, by name; none where nothing was learnt."""
        digests = self.result["sadi_bench"].get("files", {})
        return _listed(self.path, digests, STEERING, load_file, {})

    def _scores(self, reader: Callable[[Path], Any]) -> Any:
        digests = self.result["sadi_bench"].get("files", {})
        return _listed(self.path, digests, GRID, reader, pd.DataFrame())

    @property
    def report(self) -> dict[str, Any]:
        """What the run found: protocols, cells, answers, diagnosis."""
        ours = self.result["sadi_bench"]
        return {name: ours[name] for name in REPORTED if name in ours}

    @property
    def table(self) -> str:
        """The table that the command prints."""
        from sadi_bench.results.tables import run_table  # it imports what is imported here

        return run_table(self.result, self.path)


def load_result(path: str | os.PathLike) -> dict[str, object]:
    """Read result.json alone, in milliseconds.

    Raises:
        SettingError: the run was never finished, or the file is damaged.
    """
    path = Path(path)
    settle(path)
    if not is_complete(path):
        raise SettingError(f"{path}: no finished run: {RESULT} is missing. Run it (again) first.")
    result = _read(path / RESULT, _json)
    if not isinstance(result, dict) or "sadi_bench" not in result:
        raise SettingError(f"{path / RESULT}: not a result of sadi-bench; use force=true.")
    return result


def load_config(path: str | os.PathLike) -> dict[str, Any]:
    """Read config.yaml of a finished run, the resolved settings.

    Raises:
        SettingError: the file is missing or damaged.
    """
    config = _read(Path(path) / CONFIG, lambda file: yaml.safe_load(file.read_bytes()))
    if not isinstance(config, dict):
        raise SettingError(f"{Path(path) / CONFIG}: not a config of sadi-bench; use force=true.")
    return config


def load_run(path: str | os.PathLike) -> Run:
    """Read all files of a finished run, each checked against the digest in result.json.

    Raises:
        SettingError: a file is missing, cut off or changed; the message names it.
    """
    return _of_one_result(Path(path), _run_of)


def check_run(path: str | os.PathLike, *, judged: bool = True) -> None:
    """Compare the files of a finished run with their digests in result.json.

    `judged=False` leaves the judges' decisions out, which can be made again without the run.

    Raises:
        SettingError: a file is missing, damaged or edited; the message names it.
    """

    def check(path: Path, result: Mapping[str, Any]) -> None:
        decisions = DECISIONS.format("*")
        for name, digest in result["sadi_bench"].get("files", {}).items():
            if judged or not fnmatch(name, decisions):
                _read(path / name, Path.is_file, digest)

    _of_one_result(Path(path), check)


def _of_one_result(path: Path, read: Callable[[Path, Mapping[str, Any]], Found]) -> Found:
    """Read files of a run; begin again where another process finished the run meanwhile."""
    result = load_result(path)
    try:
        return read(path, result)
    except SettingError:
        if load_result(path) == result:
            raise
    return _of_one_result(path, read)


def _run_of(path: Path, result: dict[str, Any]) -> Run:
    read = partial(_listed, path, result["sadi_bench"].get("files", {}))
    read(STEERING, Path.is_file, None)  # its digest alone; `tensors` and `steering` read it
    judges = result["sadi_bench"].get("judged", {})
    said = {kind: read(DECISIONS.format(kind), _json_lines, []) for kind in judges}
    return Run(
        path=path,
        config=read(CONFIG, lambda file: file.read_text(encoding="utf-8"), ""),
        pairs=read(PAIRS, _json_lines, []),
        docs=read(DOCS, _json_lines, []),
        texts=_with_decisions(load_texts(path, result), said),
        elements=read(ELEMENTS, _csv, pd.DataFrame()),
        columns=read(GRID, ParquetColumns, pd.DataFrame()),
        result=result,
    )


def load_grid(path: str | os.PathLike) -> Columns:
    """Open the grid of a finished run alone, checked against its digest in result.json."""
    digests = load_result(path)["sadi_bench"].get("files", {})
    return _listed(Path(path), digests, GRID, ParquetColumns, pd.DataFrame())


def load_texts(path: Path, result: Mapping[str, Any]) -> list[dict[str, object]]:
    """Read what the model wrote, without what judges said of it."""
    return _listed(path, result["sadi_bench"].get("files", {}), TEXTS, _json_lines, [])


def load_decisions(path: Path, kind: str) -> list[dict[str, object]]:
    """Read what the judge of a kind said, checked against its digest in result.json."""
    digests = load_result(path)["sadi_bench"].get("files", {})
    return _listed(path, digests, DECISIONS.format(kind), _json_lines, [])


def _with_decisions(
    texts: list[dict[str, object]], said: Mapping[str, list[dict[str, object]]]
) -> list[dict[str, object]]:
    """Put every judge's decisions beside the text of the same split, document and cell."""
    found: dict[tuple, dict[str, object]] = {}
    for kind, rows in said.items():
        for row in rows:
            scores = {name: value for name, value in row.items() if name not in TEXT_KEY}
            found.setdefault(_key(row), {})[kind] = scores
    return [row | ({"judged": found[_key(row)]} if _key(row) in found else {}) for row in texts]


def _key(row: Mapping[str, object]) -> tuple:
    return tuple(row[name] for name in TEXT_KEY)


def _listed(
    path: Path, digests: Mapping[str, str], name: str, reader: Callable[[Path], Any], absent: Any
) -> Any:
    """Read a file that result.json lists, or return what stands for one that it does not."""
    return _read(path / name, reader, digests[name]) if name in digests else absent


def _read(file: Path, reader: Callable[[Path], object], digest: str | None = None) -> object:
    try:
        if digest is not None and sha256(file) != digest:
            raise ValueError("not the file that was written, by its SHA-256 in result.json")
        return reader(file)
    # ValueError covers JSON, CSV, UTF-8 and Arrow's complaints about what a file contains.
    except (OSError, ValueError, SafetensorError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SettingError(
            f"{file}: cannot be read: {' '.join(str(reason).split())}. {_remedy(file.name)}"
        ) from error


def _remedy(name: str) -> str:
    judge = name.removeprefix("judged-").removesuffix(".jsonl")
    if name == DECISIONS.format(judge):
        return f"Judge the run again with judge={judge}."
    return "Compute the run again with force=true."


def _json(file: Path) -> object:
    return json.loads(file.read_text(encoding="utf-8"))


def _json_lines(file: Path) -> list[dict[str, object]]:
    # Not splitlines(): it also breaks at U+2028, which JSON allows inside a string.
    with file.open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def _csv(file: Path) -> pd.DataFrame:
    # Arrow's parser gives back every float exactly; the default one of pandas 2 does not.
    return pd.read_csv(file, engine="pyarrow")
