"""The tasks of grpc.aio that keep calls open, by which a call can be ended whose caller does not read."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from typing import Any

_GRPC_CALL = "_schedule_rpc_coro"
"""The coroutine of grpc.aio that keeps a call open until its caller has read all of it, or has gone."""

_keepers: contextvars.ContextVar[list[weakref.ref[asyncio.Task[Any]]]] = contextvars.ContextVar("keepers")


def task_factory(loop: asyncio.AbstractEventLoop, coroutine: Any, /, **options: Any) -> asyncio.Task[Any]:
    """Makes the event loop's tasks, and remembers for each call the task of grpc.aio that keeps it open.

    Ending the handler does not end a call in grpc.aio: while the caller does not read what was written, the call stays
    open and its message in memory. Cancelling the task remembered here ends it.
    """
    if getattr(coroutine, "__name__", "") != _GRPC_CALL:
        return asyncio.Task(coroutine, loop=loop, **options)
    keepers: list[weakref.ref[asyncio.Task[Any]]] = []

    def make() -> asyncio.Task[Any]:
        _keepers.set(keepers)
        return asyncio.Task(coroutine, loop=loop, **options)

    task = contextvars.copy_context().run(make)
    keepers.append(weakref.ref(task))
    return task


def keepers() -> list[weakref.ref[asyncio.Task[Any]]]:
    """The tasks that keep the present call open; none where the event loop has another task factory."""
    return _keepers.get([])
