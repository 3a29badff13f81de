"""Compose configs inside Python, as the command does: a choice's YAML and settings of one's own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from sadi_bench.config import choices, config_folder, plain_words, register_schemas, settings_of
from sadi_bench.errors import SettingError, unknown_name
from sadi_bench.settings import RunConfig


def composed(*overrides: str) -> RunConfig:
    """Compose a run's config from what would be typed behind `sadi-bench`."""
    with _one_line():
        return with_other_tasks(settings_of(*_compose(overrides)))


def with_other_tasks(config: RunConfig) -> RunConfig:
    """Turn what `also` names into tasks.

    Raises:
        SettingError: an entry is no task's name, nor a mapping with one.
    """
    specs = []
    for entry in config.also:
        settings = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise SettingError(
                f"also={entry}: name a task, like also=[boolq], or with settings of its own, like "
                "also=[{name: boolq, n_test: 100}]."
            )
        specs.append(chosen("task", name, settings))
    return replace(config, also=specs)


def chosen(group: str, name: str, settings: Mapping[str, Any]) -> Any:
    """Compose one choice of a group with settings of its own; returns the group's plain value.

    Raises:
        SettingError: no such choice or setting, or a value of another type.
    """
    if name not in choices(group):
        raise unknown_name(group, name, choices(group))
    with _one_line():
        cfg, files, sources = _compose([f"{group}={name}"])
        for key, value in settings.items():
            OmegaConf.update(cfg, f"{group}.{key}", value, merge=False, force_add=False)
        return getattr(settings_of(cfg, files, sources), group)


def typed_runs(*typed: str) -> list[tuple[str, ...]]:
    """Return the settings of every run that `sadi-bench` would do: one, or those of a sweep.

    A sweep is asked for by -m, or by an experiment; its settings are split as Hydra's own sweeper
    splits them.
    """
    flags = {"-m", "--multirun"}
    settings = [word for word in typed if word not in flags]
    with _one_line(), _hydra():
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        parsed = parser.parse_overrides(settings)
        alone = [each.input_line for each in parsed if not each.is_sweep_override()]
        found = compose("config", alone, return_hydra_config=True).hydra
        if flags.isdisjoint(typed) and found.mode != RunMode.MULTIRUN:
            return [tuple(settings)]
        swept = [f"{key}={value}" for key, value in (found.sweeper.params or {}).items()]
        parsed = parser.parse_overrides([*swept, *settings])
        return [tuple(run) for run in BasicSweeper.split_arguments(parsed, None)[0]]


def _compose(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any], list[Any]]:
    """Return the composed config, the file taken of each group, and where Hydra looks for files."""
    with _hydra():
        cfg = compose("config", list(overrides), return_hydra_config=True)
    with open_dict(cfg):
        runtime = cfg.pop("hydra").runtime
    return cfg, dict(runtime.choices), list(runtime.config_sources)


@contextmanager
def _hydra() -> Iterator[None]:
    """Make Hydra ready, also inside an application of Hydra."""
    backup = get_gh_backup()
    GlobalHydra.instance().clear()
    register_schemas()
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            yield
    finally:
        restore_gh_from_backup(backup)


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except SettingError:
        raise
    except Exception as error:
        line = plain_words(error)
        if line is None:
            raise
        raise SettingError(line) from error
