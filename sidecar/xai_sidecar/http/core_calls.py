"""Calls of the core, which runs on an event loop of its own, by those who wait on the event loop of HTTP.

routes ─ CoreCalls.answer ─► CallRecords, the core ─► what is sent
▲ cancels it when the caller leaves
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from xai_sidecar.errors import ShuttingDownError, SidecarError
from xai_sidecar.serving.call_records import CallRecord, CallRecords
from xai_sidecar.serving.core import deadline_of

T = TypeVar("T")
R = TypeVar("R")

_MOST_WAITING = 4
"""Events of a stream that wait for the caller to read them."""


@dataclass(frozen=True)
class HttpCall:
    """A request that has been received.

    Attributes:
        body: Its body.
        request_id: The id that it goes by.
        receive: Tells when the caller leaves.
        seconds: How long the caller waits, from `came` on; None for ever.
        named: Whether the caller gave it its id.
        came: When it came, on the clock of `time.monotonic`.
    """

    body: bytes
    request_id: str
    receive: Receive
    seconds: float | None = None
    named: bool = False
    came: float = field(default_factory=time.monotonic)

    @property
    def deadline(self) -> float:
        """When the caller stops waiting, on the clock of `time.monotonic`."""
        return deadline_of(self.seconds_left())

    def seconds_left(self) -> float | None:
        """How long the caller still waits; None for ever."""
        return None if self.seconds is None else self.came + self.seconds - time.monotonic()


class CoreCalls:
    """Has calls worked on, on the core's event loop.

    Args:
        loop: The core's event loop.
        records: The calls in progress there.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, records: CallRecords) -> None:
        self._loop = loop
        self._records = records

    async def answer(
        self,
        method: str,
        call: HttpCall,
        read: Callable[[bytes], R],
        work: Callable[[R, CallRecord], Awaitable[T]],
    ) -> T:
        """What a call is answered.

        Args:
            method: One of `telemetry.METHODS`.
            call: The call.
            read: Makes a request of its body, here and now.
            work: Answers it; a coroutine function, run on the core's event loop.

        Raises:
            SidecarError: Why it has no answer.
            ClientDisconnect: Nobody waits for the answer any more; the work has been cancelled.
        """
        request = _attempt(read, call.body)
        return await self._there(self._recorded(method, call, lambda record: work(request(), record)), call)

    async def events(
        self,
        method: str,
        call: HttpCall,
        read: Callable[[bytes], R],
        work: Callable[[R, CallRecord], AsyncGenerator[T, None]],
    ) -> AsyncGenerator[T, None]:
        """As `answer`, for answers that come one after another."""
        request = _attempt(read, call.body)
        home, events = asyncio.get_running_loop(), asyncio.Queue[T](_MOST_WAITING)

        async def produce(record: CallRecord) -> None:
            async with aclosing(work(request(), record)) as produced:
                async for event in produced:
                    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(events.put(event), home))

        task = asyncio.ensure_future(self._there(self._recorded(method, call, produce), call))
        task.add_done_callback(_looked_at)
        getting = None
        try:
            while not (task.done() and events.empty()):
                getting = asyncio.ensure_future(events.get())
                await asyncio.wait((getting, task), return_when=asyncio.FIRST_COMPLETED)
                if getting.done():
                    yield getting.result()
                else:
                    getting.cancel()
            await task
        finally:
            task.cancel()
            if getting is not None:
                getting.cancel()

    def check_size(self, byte_count: int) -> None:
        """Checks the size of an answer; see `CallRecords.check_size`."""
        self._records.check_size(byte_count)

    def refused(self, method: str, request_id: str, error: SidecarError) -> None:
        """Logs and counts a call that was refused before it was read; see `CallRecords.refused`."""
        self._records.refused(method, request_id, error)

    async def ask(self, function: Callable[[], T]) -> T:
        """What a function says that is to be called on the core's event loop.

        Raises:
            SidecarError: What it raises.
        """

        async def called() -> T:
            return function()

        return await self._submitted(called())

    async def _recorded(self, method: str, call: HttpCall, work: Callable[[CallRecord], Awaitable[T]]) -> T:
        incoming = self._records.receive()
        record = self._records.record(incoming, method, len(call.body), call.request_id, call.seconds_left)
        try:
            with record:
                return await work(record)
        finally:
            record.close()

    async def _there(self, coroutine: Coroutine[Any, Any, T], call: HttpCall) -> T:
        """What a coroutine returns on the core's event loop; it is cancelled where the caller leaves first."""
        working = asyncio.ensure_future(self._submitted(coroutine))
        leaving = asyncio.ensure_future(_gone(call.receive))
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientDisconnect
            return await working
        finally:
            working.cancel()
            leaving.cancel()

    async def _submitted(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise ShuttingDownError("The server is shutting down. Send the request to another one.") from None
        return await asyncio.wrap_future(future)


def _attempt(read: Callable[[bytes], R], body: bytes) -> Callable[[], R]:
    """What a function makes of a body, or raises of it, to be had later: in the record of the call."""
    try:
        request = read(body)
    except SidecarError as error:
        failed = error

        def fail() -> R:
            raise failed

        return fail
    return lambda: request


def _looked_at(task: asyncio.Task[None]) -> None:
    """Has asyncio not complain of an error that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
