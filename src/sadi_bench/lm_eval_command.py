"""`sadi-bench lm-eval ...`: lm-eval's own command, which knows `--model sadi` besides its own."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from sadi_bench.errors import SettingError

NAME = "sadi"
TARGET = "sadi_bench.lm_eval_model:SadiLM"
COMPLAINING = ("lm_eval.config.", "lm_eval.evaluator", "lm_eval.tasks.manager",
               "lm_eval.api.registry")  # fmt: skip
"""Modules whose ValueErrors are about what the user typed."""


def main(arguments: list[str]) -> None:
    """Run lm-eval's command with these arguments: run, ls or validate.

    Raises:
        SettingError: something typed is wrong, in lm-eval's words or ours.
    """
    import lm_eval.models  # noqa: F401 - names its own, which it does only where there is none
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("sadi_bench").setLevel(logging.INFO)
    with _typed(arguments), _named_by_run(), _one_line():
        cli_evaluate()


@contextmanager
def _typed(arguments: list[str]) -> Iterator[None]:
    """Put arguments where lm-eval looks for them."""
    before = sys.argv
    sys.argv = ["sadi-bench lm-eval", *arguments]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _named_by_run() -> Iterator[None]:
    """Name results of `sadi` by run and cell; lm-eval would take `pretrained`, or draw letters."""
    from lm_eval.loggers.evaluation_tracker import GeneralConfigTracker
    from lm_eval.utils import sanitize_model_name

    own = GeneralConfigTracker.log_experiment_args

    def named(tracker: GeneralConfigTracker, model_source: str, model_args: Any, **rest: Any):
        own(tracker, model_source=model_source, model_args=model_args, **rest)
        if model_source == NAME:
            from sadi_bench.lm_eval_model import result_name

            tracker.model_name = result_name(model_args)
            tracker.model_name_sanitized = sanitize_model_name(tracker.model_name)

    GeneralConfigTracker.log_experiment_args = named
    try:
        yield
    finally:
        GeneralConfigTracker.log_experiment_args = own


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except SettingError:
        raise
    except ValueError as error:
        if not _raised_in(error.__traceback__).startswith(COMPLAINING):
            raise
        raise SettingError(f"lm-eval: {error}") from error


def _raised_in(traceback: TracebackType | None) -> str:
    """Return the name of the module that raised an error."""
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_globals.get("__name__", "") if traceback else ""
