"""Lets threads have the CPUs in turn."""

from __future__ import annotations

import threading


class Turns:
    """A lock that goes to whoever waits for it, where a plain one may go to the same thread over and over."""

    def __init__(self) -> None:
        self._next = threading.Lock()
        self._turn = threading.Lock()

    def __enter__(self) -> None:
        with self._next:
            self._turn.acquire()

    def __exit__(self, *error: object) -> None:
        self._turn.release()
