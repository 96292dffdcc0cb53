"""Ctrl-C where MindSpore is running.

With each compiled pass MindSpore 2.10 replaces Python's handler for SIGINT by its own, unknown to Python, which sends
the process a SIGTERM. That would end the process without a message, so SIGTERM is caught as well. All functions have to
be called on the main thread.
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
    """Inside, Ctrl-C and SIGTERM raise KeyboardInterrupt; for use while MindSpore runs on another thread."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C and SIGTERM are recorded and raise nothing, which within MindSpore would crash the process.

    Yields a function that returns whether one has arrived; call it wherever it is safe to stop. A second signal ends
    the process at once.
    """
    noted = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if noted.is_set():
            os._exit(_EXIT_INTERRUPTED)
        noted.set()

    with _handled_by(note):
        yield noted.is_set


def remembered_handlers() -> Callable[[], None]:
    """Returns a function that puts back the handlers of Ctrl-C and SIGTERM of now, which a library may replace."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore


@contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
