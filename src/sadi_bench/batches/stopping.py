"""Stop between batches: the first Ctrl-C or SIGTERM waits for the batch, the second does not."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("sadi_bench")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """Say that SIGTERM, not Ctrl-C, asked to stop."""


def stop_now(signum: int, frame: FrameType | None = None) -> None:  # noqa: ARG001
    """Stop at once: a handler for Ctrl-C and SIGTERM, wherever no batch is under way."""
    raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def finishing_first() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM wait for the end of the block; a second one stops at once.

    Python delivers signals to its main thread: in another one the block is run as it is. A signal
    that the program ignores stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}

    def note(signum: int, frame: FrameType | None) -> None:
        if asked:
            stop_now(signum, frame)
        asked.append(signum)
        log.warning("stopping after this batch; once more stops at once")

    for signum, handler in before.items():
        # The default of SIGTERM ends the process and would lose the batch, so it is noted as well.
        if handler not in (signal.SIG_IGN, None):
            signal.signal(signum, note)
    try:
        yield
    finally:
        for signum, handler in before.items():
            if handler is not None:
                signal.signal(signum, handler)
    if asked:
        stop_now(asked[0])
