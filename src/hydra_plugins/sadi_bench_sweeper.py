"""The sweeper that configs/config.yaml chooses; Hydra takes sweepers from this package alone."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import join

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SummedUpSweeper(BasicSweeper):
    """Start a run of every combination, as Hydra's own sweeper does, and sum up how all ended."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what the launcher is made from."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Do the runs. The tables, figures and verbs import nothing of this."""
        from sadi_bench.identity import NOT_IDENTITY
        from sadi_bench.sweeps.planned import planned_runs, sweep_id
        from sadi_bench.sweeps.sweeping import sweep

        batches = self._batches(arguments)
        jobs = [job for batch in batches for job in batch]
        runs = planned_runs(jobs, [self._names(job) for job in jobs], sys.argv[1:])
        place = Path(os.path.normpath(Path(self.config.hydra.sweep.dir).expanduser()))
        folder = place / sweep_id(jobs, NOT_IDENTITY)
        self._put_into(folder)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )

        def launch() -> None:
            begun = 0
            for batch in batches:
                launcher.launch(batch, initial_job_idx=begun)
                begun += len(batch)

        cluster = getattr(launcher, "_EXECUTOR", None)  # of submitit's two launchers
        sweep(runs, folder, join(["sadi-bench", *sys.argv[1:]]), launch, cluster)

    def _batches(self, arguments: Sequence[str]) -> list[list[list[str]]]:
        """Return the settings of every run, in batches that are launched one after another."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        # submitit would start all runs at once on this machine, and on its first GPU
        local = self.config.hydra.launcher._target_.endswith(".LocalLauncher")
        return self.split_arguments(overrides, self.max_batch_size or (1 if local else None))

    def _names(self, job: Sequence[str]) -> tuple[str, str, str]:
        """Compose a run's config, which finds mistakes before the first run, and name the run."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(job))
        model = config.model
        name = model.name or (Path(model.pretrained).name if model.pretrained else None)
        name = name or (model.package.name if model.package else "")
        return str(config.task.name), name, str(config.method.name)

    def _put_into(self, folder: Path) -> None:
        """Tell the launcher, and the runs, whose configs are composed anew, the sweep's folder."""
        self.config.hydra.sweep.dir = str(folder)
        quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
        self.config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")
