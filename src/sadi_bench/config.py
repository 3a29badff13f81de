"""Between Hydra and the program: the types, the choices, a plain RunConfig, plain complaints."""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
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


def choices(group: str) -> list[str]:
    """List what a group offers: one YAML file a choice."""
    return sorted(file.stem for file in (config_folder() / group).glob("*.yaml"))


def register_schemas() -> None:
    """Tell Hydra the types, under names that the YAML files start from."""
    store = ConfigStore.instance()
    store.store(name="base_config", node=RunConfig)
    store.store(group="task", name="base_task", node=TaskSpec)
    store.store(group="model", name="base_model", node=ModelSpec)
    store.store(group="finetune", name="base_finetune", node=FinetuneSpec)
    store.store(group="judge", name="base_judge", node=JudgeSpec)
    OmegaConf.register_new_resolver("choices", _listed, replace=True)  # for the text of --help


def _listed(group: str) -> str:
    text = textwrap.fill(", ".join(choices(group)), width=78, break_on_hyphens=False)
    return text.replace("\n", "\n" + " " * 14)


def settings_of(cfg: DictConfig, chosen: Mapping[str, Any]) -> RunConfig:
    """Turn a composed config into plain values; `chosen` is the file taken of each group.

    Hydra takes any key behind a `+`, several files of a group, and any name: refused here.
    """
    _check_keys(cfg, "")
    for group in ("task", "model", "method"):
        _check_name(group, chosen.get(group), cfg[group])
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


def _check_name(group: str, chosen: str | None, cfg: DictConfig) -> None:
    """Refuse a label that is another choice's: tables would show that one's name and values."""
    name = cfg.get("name")
    if chosen is None and name:
        raise _choose_one(group)
    if name != chosen and name in choices(group) and not cfg.get("harness"):
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
        group, _, name = error.missing_cfg_file.rstrip("/").rpartition("/")
        known = choices(group) if group in GROUPS else error.options or ()
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
