"""Settings of the C library's allocator for freed memory."""

from __future__ import annotations

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_KEPT_BYTES = 256 * 2**20
_FROM_HEAP_BYTES = 32 * 2**20


def _c_library() -> ctypes.CDLL | None:
    """The C library that runs this process. Looking for its file instead would start a process that lists them all."""
    try:
        return ctypes.CDLL(None)
    except OSError:
        return None


def keep_freed_memory() -> None:
    """Makes the C library keep some freed memory for the next request instead of returning it to the kernel.

    Every picture takes buffers of some hundred kilobytes, which glibc would map and unmap afresh each time, most of all
    in threads other than the main one, whose arenas give memory back soonest; the page faults cost more than resizing
    the picture. So all threads share one arena, which is slow to shrink. Buffers over 32 MiB are still
    returned at once.
    Other C libraries are left alone.
    """
    library = _c_library()
    if library is not None and hasattr(library, "mallopt"):
        library.mallopt(_M_ARENA_MAX, 1)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        library.mallopt(_M_MMAP_THRESHOLD, _FROM_HEAP_BYTES)
