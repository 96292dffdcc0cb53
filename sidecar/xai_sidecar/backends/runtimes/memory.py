"""Gives memory back to the system."""

from __future__ import annotations

import contextlib
import ctypes


def trim_heap() -> None:
    """Has the C library return what is free to the system, where it can (glibc); it takes milliseconds.

    Loading a graph of 100 MB frees some 150 MB, of what it was read into, which would stay with the process.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
