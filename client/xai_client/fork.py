"""Clients in forked children.

gRPC has threads and connections that do not survive a fork. Where none of it was in use at that moment, a child may set
up connections of its own. Where it was, anything that the child asks of gRPC may hang or crash, even a new channel; so
nothing is asked of it any more, and every call raises a `ForkedError` at once.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakSet

import grpc

from xai_client.errors import ForkedError

_WORKERS: Final = ("channel_spin", "_poll_wrapper")
"""Targets of gRPC's own Python threads: of streams and futures, and of everything asynchronous."""
_OFF: Final = ("0", "false", "no", "off", "n", "f")


class _ForkState:
    """Forks and uses of gRPC in this process.

    Attributes:
        generation: Number of forks between the first process and this one.
        broken: Whether gRPC was in use at one of them.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.broken = False
        self.lock = threading.RLock()
        self.calls = 0
        self.channels: WeakSet[Any] = WeakSet()
        self.asynchronous: WeakSet[Any] = WeakSet()
        self._busy = False
        self._abandoned: list[Any] = []

    def check(self) -> None:
        if self.broken:
            raise ForkedError(
                "this process was forked while its parent was using gRPC, whose threads a fork does not take along: no"
                " calls can be made in it. Start such processes by spawn or forkserver, or fork before the first call,"
                " or when none is in progress and no AsyncClient is open"
            )

    def before(self) -> None:
        self.lock.acquire()  # no call begins between this check and the fork
        unguarded = bool(self.channels) and _support_is_off()
        self._busy = self.calls > 0 or bool(self.asynchronous) or unguarded or _others_use_grpc()

    def after_in_parent(self) -> None:
        self.lock.release()

    def after_in_child(self) -> None:
        self.broken = self.broken or self._busy
        self.generation += 1
        self.calls = 0
        # Never closed: that would need the threads that are not here.
        self._abandoned.extend((*self.channels, *self.asynchronous))
        self.channels.clear()
        self.asynchronous.clear()
        self.lock.release()


_state = _ForkState()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_state.before, after_in_parent=_state.after_in_parent, after_in_child=_state.after_in_child
    )


def generation() -> int:
    """A number that differs between a process and its forked children."""
    return _state.generation


def check() -> None:
    """Raises a ForkedError where gRPC cannot be used."""
    _state.check()


@contextmanager
def guard() -> Iterator[Callable[[], bool]]:
    """Around a call: a fork during it leaves the child without gRPC.

    Yields a function that returns whether this still is the process of the call.

    Raises:
        ForkedError: This process is such a child.
    """
    with _state.lock:
        _state.check()
        belongs_to = _state.generation
        _state.calls += 1

    def is_here() -> bool:
        return belongs_to == _state.generation

    try:
        yield is_here
    finally:
        with _state.lock:
            if is_here():
                _state.calls -= 1


@contextmanager
def opening() -> Iterator[int]:
    """Around the opening of a channel: nothing forks meanwhile. Yields the generation that the channel belongs to.

    Raises:
        ForkedError: No channel can be opened in this process.
    """
    with _state.lock:
        _state.check()
        yield _state.generation


def opened(channel: Any, *, asynchronous: bool = False) -> None:
    """Registers a channel; to be called within `opening`."""
    (_state.asynchronous if asynchronous else _state.channels).add(channel)


def closed(channel: Any) -> None:
    """Forgets a channel of this process that has been closed."""
    with _state.lock:
        _state.channels.discard(channel)
        _state.asynchronous.discard(channel)


def _support_is_off() -> bool:
    """Whether gRPC's own support of forks is switched off."""
    return os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in _OFF


def _others_use_grpc() -> bool:
    """Whether another thread is in gRPC at this moment, maybe for another library."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    folder = os.path.dirname(grpc.__file__)  # noqa: PTH120
    for ident, frame in sys._current_frames().items():
        if ident == threading.get_ident():
            continue
        if frame.f_code.co_filename.startswith(folder) or any(each in names.get(ident, "") for each in _WORKERS):
            return True
    return False
