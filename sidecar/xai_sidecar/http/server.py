"""Serves HTTP in a thread of its own, with an event loop of its own, so that probes are answered whatever else runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from functools import partial
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp

from xai_sidecar.http.connections import ConnectionLimits, Connections
from xai_sidecar.http.tls import HANDSHAKE_SECONDS, FreshContext
from xai_sidecar.serving.tls_files import TlsFiles

_BACKLOG = 128
_CLOSING_SECONDS = 1
"""How long answers may still take when the server closes."""

_log = structlog.get_logger(__name__)


class HttpServer:
    """Serves from construction to `close`.

    Args:
        host: Where to listen.
        port: Where to listen; 0 takes a free port.
        app: What is served.
        limits: Limits of connections.
        tls: The files of TLS; None without it.

    Attributes:
        port: Where it listens.

    Raises:
        OSError: It cannot listen there.
    """

    def __init__(
        self,
        host: str,
        port: int,
        app: ASGIApp,
        limits: ConnectionLimits | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self._socket = _listening(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._connections = Connections(limits or ConnectionLimits())
        self._server = uvicorn.Server(_config(app, self._connections, tls))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening, and waits a moment until answers in progress are sent."""
        self._server.should_exit = True
        self._thread.join(2 * _CLOSING_SECONDS)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_report)
        if self._server.config.ssl is not None:  # uvicorn has no argument for it
            listen = partial(loop.create_server, ssl_handshake_timeout=HANDSHAKE_SECONDS)
            loop.create_server = listen  # type: ignore[method-assign]
        watching = asyncio.ensure_future(self._connections.watch())
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching


def _listening(host: str, port: int) -> socket.socket:
    if ":" not in host:
        return socket.create_server((host, port), backlog=_BACKLOG)
    both = socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=both)


def _config(app: ASGIApp, connections: Connections, tls: TlsFiles | None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        # h11 bounds the size of heads.
        http=connections.protocol,  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        interface="asgi3",
        # Its lines would not be ours; what fails in the application is logged there.
        log_config=None,
        log_level=logging.CRITICAL + 1,
        access_log=False,
        server_header=False,
        # Whoever asks says who he is by what he connects with, not by a header.
        proxy_headers=False,
        timeout_keep_alive=int(connections.limits.idle_seconds),
        timeout_graceful_shutdown=_CLOSING_SECONDS,
    )
    config.load()
    config.ssl = None if tls is None else FreshContext(tls)
    return config


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs what goes wrong on the event loop outside of any request, such as too many open files."""
    error = context.get("exception")
    _log.error("http_failed", what=context.get("message", ""), error=f"{type(error).__name__}: {error}")
