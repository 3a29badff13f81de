"""Stop between batches: the first Ctrl-C or SIGTERM waits for the batch, the second does not."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("sadi_bench")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], None]


class Terminated(KeyboardInterrupt):
    """Say that SIGTERM, not Ctrl-C, asked to stop."""


def stop_now(signum: int, frame: FrameType | None = None) -> None:  # noqa: ARG001
    """Stop at once, wherever the program is."""
    raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Let a function answer Ctrl-C and SIGTERM inside the block.

    Python delivers signals to its main thread: in another one the block is run as it is. A signal
    that is ignored stays so, and one that a launcher answers (submitit: a re-queue) is left to it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    plain = signal.SIG_DFL, signal.default_int_handler, stop_now
    ours = [signum for signum, known in before.items() if known in plain]
    for signum in ours:
        signal.signal(signum, handler)
    try:
        yield
    finally:
        for signum in ours:
            signal.signal(signum, before[signum])


@contextmanager
def finishing_first() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM wait for the end of the block; a second one stops at once."""
    asked: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        if asked:
            stop_now(signum, frame)
        asked.append(signum)
        log.warning("stopping after this batch; once more stops at once")

    with handled(note):
        yield
    if asked:
        stop_now(asked[0])
