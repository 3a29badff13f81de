"""What several runs of one process share."""

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sadi_bench.models.loading import Models


class Session:
    """Own what outlives a run: the loaded model. What is not asked for is not imported."""

    @cached_property
    def models(self) -> "Models":
        """The last model that was loaded."""
        from sadi_bench.models.loading import Models

        return Models()
