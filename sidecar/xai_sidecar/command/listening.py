"""Where the server listens, for both protocols."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import grpc
from starlette.middleware import Middleware
from starlette.routing import Route

from xai_sidecar.command.addresses import cannot_listen, split
from xai_sidecar.config import ServerConfig
from xai_sidecar.http.application import application
from xai_sidecar.http.connections import ConnectionLimits
from xai_sidecar.http.server import HttpServer
from xai_sidecar.rpc.tls import server_credentials
from xai_sidecar.serving.tls_files import TlsFiles


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


def start_http(config: ServerConfig, routes: Sequence[Route], middleware: Sequence[Middleware] = ()) -> HttpServer:
    """Serves HTTP.

    Args:
        config: Where, and with which limits.
        routes: What is at which path.
        middleware: Around all of it, the outermost first.

    Raises:
        ConfigError: It cannot listen there.
    """
    host, port = split(config.http)
    limits = ConnectionLimits(stall_seconds=config.stall_seconds, message_bytes=config.max_message_bytes)
    try:
        return HttpServer(host, port, application(routes, middleware), limits)
    except OSError as error:
        raise cannot_listen("server.http", config.http, error) from error
