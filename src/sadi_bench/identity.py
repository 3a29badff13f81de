"""What names a run (its settings and its data), and what made it (the code and the libraries)."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sadi_bench.models.loading import folder_fingerprint
from sadi_bench.plugins import METHODS, METRICS, READERS, versions
from sadi_bench.provenance import PACKAGE, library_versions, source_digest
from sadi_bench.scoring.judges.choosing import judge_fingerprint
from sadi_bench.settings import RunConfig
from sadi_bench.steering.methods import method_of

SCHEMA = 1
"""Raise it where a default changes, or what a setting means: then every run id changes."""

NOT_IDENTITY = ("runs_dir", "force", "keep", "debug", "workers", "ray")
JUDGES = "judges"


def identifier_of(config: RunConfig, data_fingerprint: str) -> str:
    """Return 12 hex digits that change with a resolved config, its data, or a local model's files.

    Settings at their defaults take no part: a new field with a default leaves every id as it is.
    """
    fingerprint = data_fingerprint + folder_fingerprint(config.model.pretrained)
    fingerprint += folder_fingerprint(config.method.get("guide"))
    if config.judge_decides:
        fingerprint += judge_fingerprint(config.judge, config.task.data_dir)
    identity = {"schema": SCHEMA, "settings": _settings(config), "data": fingerprint}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def departures(settings: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that are not at their defaults, as plain values.

    A field that holds a dataclass gives that one's departures.
    """
    found = {}
    for field in dataclasses.fields(settings):
        value, default = getattr(settings, field.name), field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is dataclasses.MISSING or _plain(value) != _plain(default):
            nested = dataclasses.is_dataclass(value)
            found[field.name] = departures(value) if nested else _plain(value)
    return found


def plain(config: RunConfig) -> dict[str, Any]:
    """Turn a config into dicts, lists, strings and numbers.

    Without fine-tuning or other tasks it has no key of theirs, nor of a judge that comes
    afterwards: they leave a run as it is.
    """
    settings = _plain(config)
    for name, absent in (("finetune", config.finetune.kind == "none"), ("also", not config.also)):
        if absent:
            del settings[name]
    if not config.judge_decides:
        del settings["judge"]
    return settings


def code_of(config: RunConfig, package: Path = PACKAGE) -> dict[str, Any]:
    """Return what result.json says of the code that computes: its digest, and the libraries.

    What only shows results is no part of it, nor are judges that come afterwards.
    """
    scoring = sorted(path.name for path in (package / "scoring").iterdir())
    parts = [f"scoring/{name}" for name in scoring if name != JUDGES or config.judge_decides]
    digest = source_digest("tasks", "models", "steering", "batches", *parts, package=package)
    asked = [
        (METHODS, config.method["kind"]),
        (READERS, config.task.files.reader),
        (METRICS, config.task.process_results),
    ]
    return {"digest": digest, "libraries": library_versions() | versions(asked)}


def other_code(result: Mapping[str, Any], code: Mapping[str, Any]) -> str | None:
    """Say what made a finished run where it is not `code`; None where it is."""
    made_by = result["sadi_bench"].get("code", {})
    libraries = made_by.get("libraries", {})
    differs = [
        f"{name} {libraries.get(name, 'of unknown version')} (here: {here})"
        for name, here in code["libraries"].items()
        if libraries.get(name) != here
    ]
    if made_by.get("digest") != code["digest"]:
        differs.insert(0, "other code of tasks, models, steering or scoring")
    return ", ".join(differs) or None


def _settings(config: RunConfig) -> dict[str, Any]:
    """Return the departures that can change a result; a method's are from its own class."""
    found = {key: value for key, value in departures(config).items() if key not in NOT_IDENTITY}
    named = {key: config.method[key] for key in ("kind", "name")}
    found["method"] = {**named, **departures(method_of(config.method))}
    if not config.judge_decides:
        found.pop("judge", None)
    return found


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=dataclasses.asdict))
