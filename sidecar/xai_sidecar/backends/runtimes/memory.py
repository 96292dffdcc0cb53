"""Gives memory back to the system."""

from __future__ import annotations

import contextlib
import ctypes

from xai_sidecar.backends.runtimes.onnxruntime import shrink_arena


def give_back_memory() -> None:
    """Returns all free memory to the system, once a model is ready: loading one takes several times what it needs."""
    shrink_arena()
    trim_heap()


def trim_heap() -> None:
    """Has the C library return what is free to the system, where it can (glibc); it takes milliseconds.

    Loading a graph of 100 MB frees some 150 MB, of what it was read into, which would stay with the process.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
