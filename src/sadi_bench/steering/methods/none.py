"""No steering: the model as it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from sadi_bench.models.language_model import LanguageModel
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.intervention import UNSTEERED_MODEL, NoIntervention


@dataclass(frozen=True)
class Unsteered:
    """Fit nothing."""

    content_free = ()

    def departures(self) -> list[str]:
        """List nothing: there is nothing to switch."""
        return []

    def fit(self, _lm: LanguageModel, _pairs: Sequence[EncodedContrast]) -> NoIntervention:
        """Return the intervention whose grid is cell 0."""
        return UNSTEERED_MODEL


METHOD = Unsteered
