"""Keep lm-eval's and datasets' bars and notices off a log file."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import datasets
import lm_eval.api.task
from tqdm import tqdm


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Show progress bars only on a terminal, and of lm-eval's log only the errors.

    lm-eval hands its request bar no `disable`, so the name it looks up is swapped meanwhile.
    """
    logger = logging.getLogger("lm_eval")
    level, bar = logger.level, lm_eval.api.task.tqdm
    bars_were_off = datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    lm_eval.api.task.tqdm = partial(tqdm, disable=None, leave=False, desc="prompts", unit="doc")
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        lm_eval.api.task.tqdm = bar
        if not bars_were_off:
            datasets.enable_progress_bars()
