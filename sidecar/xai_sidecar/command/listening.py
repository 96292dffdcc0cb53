"""Where the server listens, for both protocols."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import structlog
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp

from xai_sidecar.command.addresses import cannot_listen, split
from xai_sidecar.config import ServerConfig
from xai_sidecar.config.listening import is_loopback
from xai_sidecar.http.access import guarded
from xai_sidecar.http.application import application
from xai_sidecar.http.connections import ConnectionLimits
from xai_sidecar.http.requests import Refused
from xai_sidecar.http.server import HttpServer
from xai_sidecar.rpc.tls import server_credentials
from xai_sidecar.serving.access import Access
from xai_sidecar.serving.tls_files import TlsFiles

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Guards:
    """Who may call, on whatever port.

    Attributes:
        access: Knows the callers.
        tls: The files of TLS; None without it.
        refused: Told of what is refused over HTTP.
    """

    access: Access
    tls: TlsFiles | None
    refused: Refused

    @classmethod
    def of(cls, config: ServerConfig, refused: Refused = lambda method, request_id, error: None) -> Guards:
        """Those that a config asks for.

        Args:
            config: What it asks for.
            refused: Told of what is refused over HTTP.

        Raises:
            ConfigError: A file is wrong.
        """
        tls = None if config.tls.certificate is None else TlsFiles(config.tls)
        _warn(config)
        return cls(Access(config.auth.tokens), tls, refused)


def _warn(config: ServerConfig) -> None:
    """Says in the log where strangers may call, or read tokens on their way."""
    reachable = [address for address in (config.grpc, config.http) if not is_loopback(address)]
    if not reachable or config.is_guarded:
        return
    if config.tls.certificate is None and config.auth.tokens is not None:
        _log.warning("tokens_are_not_encrypted", at=reachable)
    else:
        _log.warning("anybody_may_call", at=reachable)


def listen_grpc(server: grpc.aio.Server, address: str, tls: TlsFiles | None = None) -> int:
    """Has a server listen; returns the port.

    Args:
        server: The server.
        address: Where.
        tls: The files of TLS; None without it.

    Raises:
        ConfigError: It cannot.
    """
    host, wanted = split(address)
    try:
        # gRPC would say so, too, but not before it has printed lines of its own.
        socket.create_server((host, wanted), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, server_credentials(tls))
    except (OSError, RuntimeError) as error:
        raise cannot_listen("server.grpc", address, error) from error


def start_http(
    config: ServerConfig, guards: Guards, routes: Sequence[Route], middleware: Sequence[Middleware] = ()
) -> HttpServer:
    """Serves HTTP.

    Args:
        config: Where, and with which limits.
        guards: Who may call.
        routes: What is at which path.
        middleware: Around all of it, the outermost first.

    Raises:
        ConfigError: It cannot listen there.
    """
    app = application(guarded(routes, guards.access, guards.refused), middleware)
    return _http("server.http", config.http, config, app, guards.tls)


def start_probes(config: ServerConfig, address: str, guards: Guards, routes: Sequence[Route]) -> HttpServer:
    """Serves probes on a port of their own.

    Args:
        config: Whether it is guarded, and the limits.
        address: Where.
        guards: Who may call, where it is.
        routes: The probes and metrics.

    Raises:
        ConfigError: It cannot listen there.
    """
    if not config.probes_guarded:
        return _http("server.probes", address, config, application(routes), None)
    return _http(
        "server.probes", address, config, application(guarded(routes, guards.access, guards.refused)), guards.tls
    )


def _http(key: str, address: str, config: ServerConfig, app: ASGIApp, tls: TlsFiles | None) -> HttpServer:
    host, port = split(address)
    limits = ConnectionLimits(
        stall_seconds=config.stall_seconds,
        message_bytes=config.max_message_bytes,
        most_unread=max(config.queue_bytes // 4, config.max_message_bytes),
    )
    try:
        return HttpServer(host, port, app, limits, tls)
    except OSError as error:
        raise cannot_listen(key, address, error) from error
