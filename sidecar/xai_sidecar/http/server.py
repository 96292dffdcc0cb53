"""/metrics, /healthz and /readyz over HTTP, in a thread of its own so that probes are answered whatever else runs."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

_PATHS = "/metrics, /healthz and /readyz"


class HttpServer:
    """Serves from construction to `close`.

    Args:
        host: Where to listen.
        port: Where to listen; 0 takes a free port.
        registry: What /metrics shows.
        is_alive: Answers /healthz: whether the process still works, or has to be restarted.
        is_ready: Answers /readyz: whether requests should be sent here.

    Attributes:
        port: Where it listens.

    Raises:
        OSError: It cannot listen there.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        *,
        is_alive: Callable[[], bool],
        is_ready: Callable[[], bool],
    ) -> None:
        metrics = make_wsgi_app(registry)

        def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            path = environ["PATH_INFO"]
            if path == "/metrics":
                return metrics(environ, start_response)  # type: ignore[no-any-return]
            if path == "/healthz":
                return _answer(start_response, is_alive(), "alive", "dead")
            if path == "/readyz":
                return _answer(start_response, is_ready(), "ready", "not ready")
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"There is nothing at {path}. There are {_PATHS}.\n".encode()]

        server = _Server6 if ":" in host else _Server
        self._server = make_server(host, port, application, server, _Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, name="http", daemon=True).start()

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()


def _answer(start_response: Any, good: bool, yes: str, no: str) -> Iterable[bytes]:
    start_response("200 OK" if good else "503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{yes if good else no}\n".encode()]


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, with bounds on their number and age.

    Where there are too many connections, the oldest is closed: idle ones must not keep probes out, and a probe takes
    only milliseconds.
    """

    daemon_threads = True
    request_queue_size = 64
    most_connections = 64
    longest_seconds = 30.0

    def __init__(self, *arguments: Any, **others: Any) -> None:
        self._lock = threading.Lock()
        self._open: dict[socket.socket, float] = {}  # when each came, the oldest first
        super().__init__(*arguments, **others)

    def server_bind(self) -> None:
        """Binds as the base classes do, but does not look up the host's name, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """See `socketserver.BaseServer`."""
        with self._lock:
            self._open[request] = time.monotonic()
            if len(self._open) > self.most_connections:
                self._end(next(iter(self._open)))
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """See `socketserver.BaseServer`."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Closes connections that are too old; called every half second."""
        horizon = time.monotonic() - self.longest_seconds
        with self._lock:
            for request in [request for request, came in self._open.items() if came < horizon]:
                self._end(request)

    def _end(self, request: socket.socket) -> None:
        """Shuts a connection down; its thread then ends by itself."""
        self._open.pop(request, None)
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores probes that hang up early."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Probes every few seconds would drown the log."""
