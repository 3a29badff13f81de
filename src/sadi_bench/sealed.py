"""What the cache keeps is checked before it is used: digests of folders and of files.

A folder carries a seal, sealed.json: what it was made from, and the size, time and SHA-256 of each
file. A small file is always read and compared. A large one is read only where its size or time
moved, or where all is to be checked (`sadi-bench doctor`).

A single file carries its digest in its name, KEY.DIGEST.SUFFIX: file and digest appear at once.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sadi_bench.disk import held, sha256, sync, write_atomically

log = logging.getLogger(__name__)
SEAL = "sealed.json"
SMALL = 1 << 25
"""Bytes. A file up to this size is read whenever it is asked for: 30 ms."""
IN_NAME = 16
"""Hex digits of a digest that stand in a file's name."""
DAMAGED = "damaged"
"""The folder of the cache for what was found wrong."""
LOCK = ".lock"


def seal(folder: Path, made_from: Mapping[str, str]) -> None:
    """Write a folder's seal; all files of the folder are on the disk before it.

    `made_from` names what the folder was made from: `broken` compares it.
    """
    files = {}
    for name, path in _files(folder).items():
        sync(path)
        files[name] = {**_stamp(path), "sha256": sha256(path)}
    for inner in {path.parent for path in _files(folder).values()}:
        sync(inner)
    _write_seal(folder, {"made_from": dict(made_from), "files": files})


def broken(
    folder: Path, made_from: Mapping[str, str] | None = None, *, full: bool = False
) -> str | None:
    """Say what is wrong with a sealed folder, and with which file; None where nothing is.

    `full` reads every file: a change that keeps a large file's size and time is found so alone.
    """
    if not folder.is_dir():
        return f"{folder}: not there"
    try:
        known = json.loads((folder / SEAL).read_bytes())
        files, source = dict(known["files"]), dict(known["made_from"])
        moved = [name for name, each in files.items() if _stamp(folder / name) != _stamp_of(each)]
        for name, each in files.items():
            if reason := _wrong(folder / name, each, full or name in moved):
                return reason
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{folder / SEAL}: not a seal"
    if added := sorted(_files(folder).keys() - files.keys()):
        return f"{folder / added[0]}: not there when the folder was sealed"
    if made_from is not None and source != dict(made_from):
        return f"{folder}: made from {_words(source)}, not from {_words(made_from)}"
    if moved:  # a copied cache, say: its large files need not be read each time
        for name in moved:
            files[name] |= _stamp(folder / name)
        with suppress(OSError):
            _write_seal(folder, {"made_from": source, "files": files})
    return None


def keep_file(folder: Path, key: str, suffix: str, content: bytes) -> None:
    """Keep a file under a key, its digest in its name; `kept_file` finds it.

    One process writes at a time, so that what a killed one left in the folder can be deleted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(content).hexdigest()[:IN_NAME]
    with held(folder / LOCK, wait=lambda: None) as locked:
        if locked:
            delete_temporary(folder)
        write_atomically({folder / f"{key}.{digest}{suffix}": content})


def kept_file(folder: Path, key: str, suffix: str) -> Path | None:
    """Return the file that is kept under a key; one that is damaged is named and set aside."""
    for path in sorted(folder.glob(f"{key}.*{suffix}")):
        if not (reason := file_broken(path)):
            return path
        log.warning("%s; it is made again", reason)
        with suppress(OSError):  # a cache that cannot be written
            set_aside(path)
    return None


def file_broken(path: Path) -> str | None:
    """Say what is wrong with a file that `keep_file` wrote; None where nothing is."""
    try:
        digest = sha256(path)[:IN_NAME]
    except OSError as error:
        return f"{path}: {error.strerror}"
    whole = path.stem.rpartition(".")[2] == digest
    return None if whole else f"{path}: not what was written, by the SHA-256 in its name"


def set_aside(path: Path) -> Path:
    """Move what is wrong out of its part of the cache; return where it is now.

    It is not deleted: a checkpoint of many hours may be worth a look.
    """
    aside = path.parents[1] / DAMAGED / f"{path.parent.name}-{path.name}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    if aside.is_dir():
        shutil.rmtree(aside)
    os.replace(path, aside)
    return aside


def delete_temporary(folder: Path) -> None:
    """Delete what a killed `write_atomically` left; nobody else may be writing there."""
    for leftover in folder.glob(".*.tmp"):
        with suppress(OSError):
            leftover.unlink()


def _wrong(path: Path, known: Mapping[str, Any], read: bool) -> str | None:
    size = path.stat().st_size
    if size != known["size"]:
        return f"{path}: {size} bytes instead of {known['size']}"
    if (read or size <= SMALL) and sha256(path) != known["sha256"]:
        return f"{path}: not what was written, by its SHA-256 in {SEAL}"
    return None


def _files(folder: Path) -> dict[str, Path]:
    """Return a folder's files by name, but the seal and hidden ones."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return {n: p for n, p in names.items() if n != SEAL and not p.name.startswith(".")}


def _stamp(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _stamp_of(known: Mapping[str, Any]) -> dict[str, int]:
    return {"size": known["size"], "mtime_ns": known["mtime_ns"]}


def _write_seal(folder: Path, content: Mapping[str, Any]) -> None:
    write_atomically({folder / SEAL: json.dumps(content, indent=2).encode() + b"\n"})


def _words(source: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in source.items())
