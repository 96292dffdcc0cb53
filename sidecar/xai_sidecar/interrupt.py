"""Ctrl-C that reaches Python although MindSpore is running."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes Ctrl-C and SIGTERM raise KeyboardInterrupt inside; takes the main thread.

    With each compiled pass MindSpore 2.10 puts a handler of its own in the place of Python's for SIGINT, behind
    Python's back. All it does is to send the process a SIGTERM, which would kill it before anyone could tell how to go
    on. So that signal is caught as well.
    """
    before = {number: signal.signal(number, _raise) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
