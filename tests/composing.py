"""Compose a run's config as the command does."""

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, open_dict

from sadi_bench.config import config_folder, register_schemas, settings_of
from sadi_bench.settings import RunConfig


def composed(*overrides: str) -> tuple[DictConfig, dict[str, str], list[dict[str, str]]]:
    """Compose a run's config; say which file of each group is in it, and where they were sought."""
    GlobalHydra.instance().clear()
    register_schemas()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = compose("config", list(overrides), return_hydra_config=True)
    with open_dict(cfg):
        runtime = cfg.pop("hydra").runtime
        return cfg, dict(runtime.choices), list(runtime.config_sources)


def settings(*overrides: str) -> RunConfig:
    return settings_of(*composed(*overrides))
