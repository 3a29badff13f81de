"""What the cache folder holds, and how to get its room back."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from sadi_bench.disk import cache_folder
from sadi_bench.errors import SettingError, unknown_name
from sadi_bench.results.formatting import aligned
from sadi_bench.sealed import DAMAGED

PARTS = {
    "activations": "what pairs made the models show; read again when asked for",
    "models": "models out of packages; unpacked again",
    "packages": "downloads of the package index; fetched again",
    "finetuned": "fine-tuned checkpoints; trained again",
    "judges": "what offline judges learnt; learnt again",
    DAMAGED: "what was found damaged, and is made again without it",
}
"""A folder of the cache → what it holds, and what its loss costs."""


def cache_table() -> str:
    """Say where the cache is, and what each part holds in megabytes."""
    folder = cache_folder()
    sizes = {part: _bytes(folder / part) for part in PARTS}
    rows = [["part", "MB", "holds"]]
    rows += [[part, _megabytes(sizes[part]), what] for part, what in PARTS.items()]
    rows += [["all", _megabytes(sum(sizes.values())), f"delete: sadi-bench cache prune {_names()}"]]
    lines = [f"{row[0]:<12}{row[1]:>10}  {row[2]}" for row in rows]
    return "\n".join([str(folder), "", *lines])


def pruned(parts: Sequence[str]) -> str:
    """Delete parts of the cache; `all` is every one. Runs that use them should be done.

    Raises:
        SettingError: no part is named, or one that there is not.
    """
    if not parts:
        raise SettingError(f"cache prune: which part? Name {_names()}.")
    for part in parts:
        if part != "all" and part not in PARTS:
            raise unknown_name("cache prune", part, [*PARTS, "all"])
    chosen = list(PARTS) if "all" in parts else list(dict.fromkeys(parts))
    rows = []
    for part in chosen:
        folder = cache_folder() / part
        size = _bytes(folder)
        shutil.rmtree(folder, ignore_errors=True)
        left = _bytes(folder)
        rows.append([part, _megabytes(size - left), "MB freed" + (", in part" if left else "")])
    return "\n".join(aligned(rows))


def _names() -> str:
    return "|".join([*PARTS, "all"])


def _bytes(folder: Path) -> int:
    files = folder.rglob("*") if folder.is_dir() else ()
    return sum(file.stat().st_size for file in files if file.is_file())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"
