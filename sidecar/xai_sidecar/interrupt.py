"""Ctrl-C where MindSpore is running.

With each compiled pass MindSpore 2.10 puts a handler of its own in the place of Python's for SIGINT, behind Python's
back. All it does is to send the process a SIGTERM, which would kill it before anyone could tell how to go on. So that
signal is caught as well. Both functions take the main thread.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_EXIT_INTERRUPTED = 130

Handler = Callable[[int, "FrameType | None"], None]


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes Ctrl-C and SIGTERM raise KeyboardInterrupt inside, where MindSpore runs in another thread."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Notes Ctrl-C and SIGTERM inside instead of raising anything: in the midst of MindSpore that would crash it.

    Yields whether one has come, to be asked wherever it is safe to stop. A second one ends the process at once.
    """
    noted = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if noted.is_set():
            os._exit(_EXIT_INTERRUPTED)
        noted.set()

    with _handled_by(note):
        yield noted.is_set


@contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
