"""No steering: the model as it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from sadi_bench.models.language_model import LanguageModel
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.intervention import UNSTEERED_MODEL, NoIntervention
from sadi_bench.steering.method import Method


@dataclass(frozen=True)
class Unsteered(Method):
    """Fit nothing."""

    intervention = NoIntervention

    def fit(self, lm: LanguageModel, pairs: Sequence[EncodedContrast]) -> NoIntervention:  # noqa: ARG002
        """Return the intervention whose grid is cell 0."""
        return UNSTEERED_MODEL


METHOD = Unsteered
