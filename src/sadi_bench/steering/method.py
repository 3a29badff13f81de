"""What a method is: a frozen dataclass of settings that learns an intervention from pairs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sadi_bench.models.language_model import LanguageModel
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.intervention import Intervention
from sadi_bench.steering.method_settings import check_choices


@dataclass(frozen=True)
class Method(ABC):
    """Hold a method's settings, its dataclass fields; a subclass must write `fit` and no more.

    `intervention` is the class of what `fit` returns. `CHOICES` are the fields that are one of a
    few words. A `control` is no steering, and not ranked.
    """

    intervention: ClassVar[type[Intervention]]
    CHOICES: ClassVar[Mapping[str, Sequence[str]]] = {}
    control: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse wrong settings before any model is loaded."""
        check_choices(self, self.CHOICES)
        self.check()

    def check(self) -> None:  # noqa: B027
        """Refuse what `CHOICES` does not know of; raises SettingError."""

    @abstractmethod
    def fit(self, lm: LanguageModel, pairs: Sequence[EncodedContrast]) -> Intervention:
        """Learn from the pairs' tokens and return the frozen intervention with its whole grid."""

    def blank_texts(self) -> Sequence[str]:
        """Return texts that take the documents' place in the pairs' prompts; mostly none."""
        return ()
