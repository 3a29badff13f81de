"""Compose a run's config as the command does."""

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, open_dict

from sadi_bench.config import config_folder, register_schemas, settings_of
from sadi_bench.settings import RunConfig


def composed(*overrides: str) -> tuple[DictConfig, dict[str, str]]:
    """Compose a run's config, and say which file of each group is in it."""
    GlobalHydra.instance().clear()
    register_schemas()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = compose("config", list(overrides), return_hydra_config=True)
    with open_dict(cfg):
        return cfg, dict(cfg.pop("hydra").runtime.choices)


def settings(*overrides: str) -> RunConfig:
    return settings_of(*composed(*overrides))
