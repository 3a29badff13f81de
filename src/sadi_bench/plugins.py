"""What other installed packages add: found by entry point, imported when asked for by name."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sadi_bench.errors import SettingError, unknown_name

METHODS = "sadi_bench.methods"
METRICS = "sadi_bench.metrics"
READERS = "sadi_bench.readers"
FAMILIES = "sadi_bench.families"


def plugins(group: str, ours: Collection[str] = ()) -> dict[str, EntryPoint]:
    """Find the entry points of a group by name; nothing is imported.

    Raises:
        SettingError: a name is one of `ours`, or two packages give it to different things.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        if entry.name in ours:
            raise SettingError(
                f"{group}: {_package(entry)} adds {entry.name!r}, which this program has; rename "
                "it there or uninstall the package."
            )
        before = found.setdefault(entry.name, entry)
        if before.value != entry.value:
            raise SettingError(
                f"{group}: {_package(before)} and {_package(entry)} both add {entry.name!r}; "
                "uninstall one of them."
            )
    return found


def loaded(entry: EntryPoint) -> Any:
    """Import what an entry point names.

    Raises:
        SettingError: the package does not import, or has no such thing.
    """
    try:
        return entry.load()
    except Exception as error:  # a package of the user's: its import may raise anything
        reason = (str(error).strip().splitlines() or [""])[0]
        raise SettingError(
            f"{entry.group}: {entry.name} ({entry.value}) of {_package(entry)} does not load "
            f"({type(error).__name__}: {reason}); mend or uninstall the package."
        ) from error


def by_name(setting: str, name: str, ours: Mapping[str, Any], group: str) -> Any:
    """Return what `name` stands for: one of `ours`, else another package's.

    Raises:
        SettingError: `setting` names neither; see also `plugins` and `loaded`.
    """
    added = plugins(group, ours)
    if name in ours:
        return ours[name]
    if name not in added:
        raise unknown_name(setting, name, [*ours, *added])
    return loaded(added[name])


def versions(used: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Return package → version and a digest of its sources, of those that give one of the names.

    `used` are pairs of a group and a name; a name of ours, or none, is passed over.
    """
    found = {}
    for group, name in used:
        if entry := plugins(group).get(name or ""):
            package = entry.dist.name if entry.dist else entry.module
            version = entry.dist.version if entry.dist else "of no version"
            found[package] = f"{version} {_digest(entry)}"
    return found


def _digest(entry: EntryPoint) -> str:
    """Hash the sources beside the module that an entry point names: 12 hex digits."""
    top = find_spec(entry.module.partition(".")[0])
    digest = hashlib.sha256()
    if top and top.origin:
        file = Path(top.origin)
        sources = file.parent.rglob("*.py") if top.submodule_search_locations else [file]
        for path in sorted(sources):
            digest.update(path.relative_to(file.parent).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
