"""Connections of HTTP: how many wait for a request, and how long a caller may take to send one or to read its answer.

uvicorn itself bounds none of it but how long an open connection is idle. Where too many connections have no call in
progress, the oldest of them is closed: those that say nothing must not keep probes out, and a probe is asked within
milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from xai_sidecar.http.access import CERTIFICATE, certificate_names

_TICK: Final = 0.5
_LEAST_TICK: Final = 0.05
"""Seconds from one look at all connections to the next."""

_SLOWEST_BYTES: Final = 256 * 1024
"""The slowest transfer that is waited for, in bytes a second; as of calls over gRPC."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of connections.

    Attributes:
        most_waiting: Most connections on which no call is in progress.
        head_seconds: Longest time for a request's head to arrive.
        idle_seconds: Longest time that a connection stays open after an answer without a further request.
        stall_seconds: Longest time for a caller to send a small body, or to read a small answer.
        message_bytes: Size of the largest body.
        most_unread: Most bytes of answers, over all connections, that their callers have not read.
    """

    most_waiting: int = 256
    head_seconds: float = 10.0
    idle_seconds: float = 75.0
    stall_seconds: float = 20.0
    message_bytes: int = 16 * 2**20
    most_unread: int = 256 * 2**20

    def for_bytes(self, count: int) -> float:
        """Longest time to transfer so many bytes, in seconds."""
        return self.stall_seconds + count / _SLOWEST_BYTES


@dataclass
class Connections:
    """The open connections. To be used on one event loop.

    Attributes:
        limits: Their limits.
    """

    limits: ConnectionLimits
    _open: dict[Connection, None] = field(default_factory=dict)

    def protocol(self, **arguments: Any) -> Connection:
        """Makes the protocol of a connection; the arguments are uvicorn's."""
        return Connection(self, **arguments)

    def add(self, connection: Connection) -> None:
        """Adds a connection; where too many wait, closes the one that has waited longest."""
        self._open[connection] = None
        waiting = [each for each in self._open if not each.working]
        for each in sorted(waiting, key=lambda each: each.waiting_since)[: len(waiting) - self.limits.most_waiting]:
            each.end("too many connections wait for a request")

    def remove(self, connection: Connection) -> None:
        """Removes a connection that has ended."""
        self._open.pop(connection, None)

    async def watch(self) -> None:
        """Closes connections whose callers take too long, for ever."""
        while True:
            await asyncio.sleep(max(_LEAST_TICK, min(_TICK, self.limits.head_seconds / 4)))
            now = time.monotonic()
            for each in list(self._open):
                if reason := each.too_slow(now):
                    each.end(reason)
            self._bound_unread()

    def _bound_unread(self) -> None:
        """Closes those that have left most unread, while all together leave more than may be."""
        unread = {each: each.unread for each in self._open}
        total = sum(unread.values())
        for each in sorted(unread, key=lambda each: -unread[each]):
            if total <= self.limits.most_unread:
                return
            total -= unread[each]
            each.end("too much is not read")


class Connection(H11Protocol):
    """A connection that knows what it waits for, and since when.

    Attributes:
        waiting_since: When it was opened, or its last call ended.
    """

    def __init__(self, connections: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._all = connections
        self._limits = connections.limits
        self.waiting_since = self._began = time.monotonic()
        self._answered = False  # and no further request has begun
        self._unread_since: float | None = None
        self._most_unread = 0

    @property
    def working(self) -> bool:
        """Whether a call is in progress whose request has been received."""
        return self._in_call and not self.cycle.more_body

    @property
    def unread(self) -> int:
        """Bytes of answers that the caller has not read, beyond what the system holds."""
        return int(self.transport.get_write_buffer_size())

    @property
    def _in_call(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if names := certificate_names(transport.get_extra_info("peercert")):
            self.app = _with_certificate(self.app, names)
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._all.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._answered:
            self._answered, self._began = False, time.monotonic()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Called by uvicorn when the answer has been handed to the transport."""
        self.waiting_since = self._began = time.monotonic()
        self._answered = True
        super().on_response_complete()

    def too_slow(self, now: float) -> str:
        """Why the connection has to be closed; empty if it has not."""
        if self._leaves_unread(now):
            return "the answer is not read"
        if self._in_call:
            late = self.cycle.more_body and now - self._began > self._limits.for_bytes(self._limits.message_bytes)
            return "the request's body does not arrive" if late else ""
        late = not self._answered and now - self._began > self._limits.head_seconds
        return "no request arrives" if late else ""

    def end(self, reason: str) -> None:
        """Closes the connection at once."""
        _log.debug("connection_closed", reason=reason)
        self.transport.abort()

    def _leaves_unread(self, now: float) -> bool:
        unread = self.unread
        if not unread:
            self._unread_since = None
            return False
        if self._unread_since is None:
            self._unread_since, self._most_unread = now, 0
        self._most_unread = max(self._most_unread, unread)
        return now - self._unread_since > self._limits.for_bytes(self._most_unread)


def _with_certificate(app: ASGIApp, names: tuple[str, ...]) -> ASGIApp:
    """An application that is told the names in the caller's certificate."""

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, CERTIFICATE: names}, receive, send)

    return named
