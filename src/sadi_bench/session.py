"""What several runs of one process share."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sadi_bench.batches.executor import Executor
    from sadi_bench.batches.ray_workers import RayWorkers
    from sadi_bench.models.loading import Models
    from sadi_bench.tasks.catalogue import Catalogue


class Session:
    """Own what outlives a run: model, lm-eval's index, workers. Imported is what is asked for."""

    def __init__(self) -> None:
        self._workers: dict[tuple[int, str | None], RayWorkers] = {}

    def executor(self, folder: Path, workers: int, address: str | None) -> "Executor":
        """Say where batches are computed: here, or by workers that stay for the next run."""
        from sadi_bench.batches.executor import Executor

        if workers == 1:
            return Executor(folder)
        from sadi_bench.batches.ray_workers import RayWorkers
        from sadi_bench.models.loading import load_language_model

        asked = workers, address
        if asked not in self._workers:
            for other in self._workers.values():
                other.close()
            self._workers = {asked: RayWorkers(workers, load_language_model, address)}
        return Executor(folder, self._workers[asked])

    @cached_property
    def models(self) -> "Models":
        """The last model that was loaded."""
        from sadi_bench.models.loading import Models

        return Models()

    @cached_property
    def catalogue(self) -> "Catalogue":
        """lm-eval's index of its tasks."""
        from sadi_bench.tasks.catalogue import Catalogue

        return Catalogue()

    def __reduce__(self) -> tuple[type["Session"], tuple[()]]:
        """Take nothing along: another process loads what it needs."""
        return Session, ()
