"""What several runs of one process share."""

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sadi_bench.models.loading import Models
    from sadi_bench.tasks.catalogue import Catalogue


class Session:
    """Own what outlives a run: the loaded model, lm-eval's index. Imported is what is asked for."""

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
