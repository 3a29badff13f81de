"""Between Hydra and the program: the types, the choices, a plain RunConfig, plain complaints."""

import re
import textwrap
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from sadi_bench.errors import SettingError, unknown_key, unknown_name
from sadi_bench.models.spec import FinetuneSpec, ModelSpec
from sadi_bench.provenance import config_folder
from sadi_bench.scoring.judges.spec import JudgeSpec
from sadi_bench.settings import RunConfig
from sadi_bench.tasks.spec import TaskSpec

GROUPS = ("task", "model", "method", "finetune", "judge", "experiment")

LAUNCHER = "hydra/launcher"
EXTRAS = {"ray": "ray", "submitit_local": "slurm", "submitit_slurm": "slurm"}
"""A launcher → the extra of sadi-bench that installs it."""

Sources = Iterable[Mapping[str, str]]  # each with path, schema (file, pkg, ...) and provider

# A part of what OmegaConf says → what it expected, in words.
EXPECTED = {
    r"converted to Integer": "a whole number",
    r"converted to Float": "a number",
    r"valid bool": "true or false",
    r"not Optional": "a value other than null",
    r"expected one of \[(.*)\]": r"one of \1",
    r"not a ListConfig|DictConfig with ListConfig": "one value or a list, like [1,2]",
    r"Cannot convert '\w+' to string": "a text",
}


def choices(group: str, sources: Sources = ()) -> list[str]:
    """List what a group offers: one YAML file a choice, here or in Hydra's other `sources`.

    `sources` is the composed hydra.runtime.config_sources: what --config-dir and hydra.searchpath
    add is among them.
    """
    found = {name for place in _places(sources) for name in _files(place, group)}
    return sorted(name.removesuffix(".yaml") for name in found)


def _places(sources: Sources) -> list[Path]:
    """Return the folders that hold groups: ours, and each that `sources` adds."""
    places = [config_folder()]
    for source in sources:
        if source["schema"] == "file" and Path(source["path"]).resolve() != places[0]:
            places.append(Path(source["path"]))
        elif source["schema"] == "pkg":
            places += _package_folders(source["path"].replace("/", "."))
    return places


def _package_folders(package: str) -> list[Path]:
    with suppress(ModuleNotFoundError):  # Hydra warns of a place that is not there
        spec = find_spec(package)
        if spec and spec.origin:  # Hydra passes over a folder without __init__.py
            return [Path(spec.origin).parent]
    return []


def _files(place: Path, group: str) -> list[str]:
    folder = place / group
    files = folder.iterdir() if folder.is_dir() else ()
    return [file.name for file in files if file.name.endswith(".yaml")]


def register_schemas() -> None:
    """Tell Hydra the types, under names that the YAML files start from."""
    store = ConfigStore.instance()
    store.store(name="base_config", node=RunConfig)
    store.store(group="task", name="base_task", node=TaskSpec)
    store.store(group="model", name="base_model", node=ModelSpec)
    store.store(group="finetune", name="base_finetune", node=FinetuneSpec)
    store.store(group="judge", name="base_judge", node=JudgeSpec)
    OmegaConf.register_new_resolver("choices", _listed, replace=True)  # for the text of --help


def register_launchers() -> None:
    """Give plug-ins' launchers the names that the files of configs/hydra/launcher start from."""
    Plugins.instance()  # imports the plug-ins, each of which stores its launcher
    stored = ConfigStore.instance().repo["hydra"]["launcher"]
    for name in choices(LAUNCHER):
        if f"{name}.yaml" in stored:
            stored[f"base_{name}.yaml"] = stored.pop(f"{name}.yaml")


def _listed(group: str, *, _root_: DictConfig) -> str:
    known = choices(group, _root_.hydra.runtime.config_sources)
    text = textwrap.fill(", ".join(known), width=78, break_on_hyphens=False)
    return text.replace("\n", "\n" + " " * 14)


def settings_of(cfg: DictConfig, chosen: Mapping[str, Any], sources: Sources = ()) -> RunConfig:
    """Turn a composed config into plain values; `chosen` is the file taken of each group.

    Hydra takes any key behind a `+`, several files of a group, and any name: refused here.
    """
    _check_keys(cfg, "")
    _check_places(chosen, _places(sources))
    for group in ("task", "model", "method"):
        _check_name(group, chosen.get(group), cfg[group], choices(group, sources))
    for group in ("finetune", "judge"):
        if chosen.get(group) is None and cfg[group].kind != "none":
            raise _choose_one(group)
    return OmegaConf.to_object(cfg)


def _check_keys(node: DictConfig, path: str) -> None:
    known = {field.name for field in fields(OmegaConf.get_type(node))}
    for key in node:
        if key not in known:
            raise unknown_key(path, key, known)
        child = None if OmegaConf.is_missing(node, key) else node[key]
        if OmegaConf.is_dict(child) and is_dataclass(OmegaConf.get_type(child)):
            _check_keys(child, f"{path}.{key}".lstrip("."))


def _check_places(chosen: Mapping[str, Any], places: list[Path]) -> None:
    """Refuse a name that two places have: Hydra would take the first, which is ours."""
    for group in GROUPS:
        file = f"{chosen.get(group)}.yaml"
        having = [place / group / file for place in places if file in _files(place, group)]
        if len(having) > 1:
            raise SettingError(
                f"{group}={chosen[group]}: {having[0]} and {having[1]} have this name; rename "
                "the file of your own."
            )


def _check_name(group: str, chosen: str | None, cfg: DictConfig, known: list[str]) -> None:
    """Refuse a label that is another choice's: tables would show that one's name and values."""
    name = cfg.get("name")
    if chosen is None and name:
        raise _choose_one(group)
    if name != chosen and name in known and not cfg.get("harness"):
        raise SettingError(
            f"{group}.name={name}: the name of another {group} than the chosen {chosen}; "
            f"choose {group}={name}, or a name of your own."
        )


def _choose_one(group: str) -> SettingError:
    return SettingError(f"{group}: choose one; -m {group}=A,B makes a run of each.")


def plain_words(error: Exception) -> str | None:
    """Say in one line what Hydra or OmegaConf complains about; None if it is not from them."""
    if isinstance(error.__cause__, OmegaConfBaseException):
        error = error.__cause__
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        group, _, name = error.missing_cfg_file.strip("/").rpartition("/")
        if group == LAUNCHER and (extra := EXTRAS.get(name.removeprefix("base_"))):
            return f"hydra/launcher needs a package more: pip install 'sadi-bench[{extra}]'."
        known = {name for name in error.options or () if not name.startswith("base_")}
        return str(unknown_name(group, name, known))
    if isinstance(error, ConfigAttributeError | ConfigKeyError) and error.parent_node is not None:
        group, _, key = str(error.full_key).rpartition(".")
        known = {str(k) for k in error.parent_node} - {"hydra"}
        return str(unknown_key(group, key, known if group else known | {"experiment"}))
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return _expected(error)
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, OverrideParseException):
        reason = text.partition(" See https://")[0]
        return (
            f"{error.override}: cannot be read ({reason}); a setting reads name=value, and a "
            "value with brackets or spaces stands in quotes: 'method.top_k=[1,2]'."
        )
    if isinstance(error, ValueError) and text.startswith("Config group override"):  # `task=null`
        return f"{', '.join(GROUPS)}: each takes one of its names ({text})."
    return text if isinstance(error, HydraException | OmegaConfBaseException) else None


def _expected(error: OmegaConfBaseException) -> str:
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}=???: give it a value."
    text = str(error.msg).strip().splitlines()[0]
    for pattern, words in EXPECTED.items():
        if match := re.search(pattern, text):
            text = f"expected {match.expand(words)}"
            break
    value = "null" if error.value is None else error.value
    typed = error.full_key if "list" in text else f"{error.full_key}={value}"
    return f"{typed}: {text}."
