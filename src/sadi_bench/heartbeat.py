"""A line every minute where there is no terminal for a bar: a log shows that work goes on."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def heartbeat(text: Callable[[], str], every: float = 60) -> Iterator[None]:
    """Print `text()` on standard error every so many seconds; nothing on a terminal.

    `text` is called in another thread.
    """
    stream = sys.stderr
    if stream.isatty():
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(every):
            print(text(), file=stream, flush=True)  # noqa: T201

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
