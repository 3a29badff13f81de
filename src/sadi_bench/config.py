"""Tell Hydra the types that configs/ and the command line are checked against."""

from pathlib import Path

from hydra.core.config_store import ConfigStore

from sadi_bench.models.spec import ModelSpec
from sadi_bench.settings import RunConfig
from sadi_bench.tasks.spec import TaskSpec


def config_folder() -> Path:
    """Find configs/: inside an installed wheel, or at the top of the repository."""
    package = Path(__file__).resolve().parent
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parents[1] / "configs"


def register_schemas() -> None:
    """Tell Hydra the types, under names that the YAML files start from."""
    store = ConfigStore.instance()
    store.store(name="base_config", node=RunConfig)
    store.store(group="task", name="base_task", node=TaskSpec)
    store.store(group="model", name="base_model", node=ModelSpec)
