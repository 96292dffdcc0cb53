"""gRPC's channel arguments: sizes of messages, numbers of connections and calls, and keepalive."""

from __future__ import annotations

from typing import Any, Final

KEEPALIVE_SECONDS: Final = 10.0
"""A connection that was silent for so long is pinged."""
PING_TIMEOUT_SECONDS: Final = 8.0
"""Longest time to answer a ping; then the connection counts as dead, and its calls are cancelled."""
HANDSHAKE_SECONDS: Final = 10.0
"""How long a new connection may take until it speaks HTTP/2, with TLS before it."""
SHORTEST_PING_SECONDS: Final = 0.5
"""Clients may ping that often. gRPC's own bound of five minutes ends the long calls of every client with keepalive."""


def server_options(
    max_message_bytes: int,
    max_calls: int,
    *,
    keepalive_seconds: float = KEEPALIVE_SECONDS,
    ping_timeout_seconds: float = PING_TIMEOUT_SECONDS,
) -> list[tuple[str, Any]]:
    """The channel arguments of the server, see gRPC's `grpc_types.h`.

    Args:
        max_message_bytes: Largest message received or sent.
        max_calls: Most calls of a connection, and most connections.
        keepalive_seconds: A connection that was silent for so long is pinged.
        ping_timeout_seconds: Longest time to answer a ping.
    """
    timeout = round(ping_timeout_seconds * 1000)
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_concurrent_streams", max_calls),
        ("grpc.max_allowed_incoming_connections", max_calls),
        # Two servers on one port would each get a part of the calls.
        ("grpc.so_reuseport", 0),
        # Of strangers, who may connect and then say nothing; by itself it is two minutes.
        ("grpc.server_handshake_timeout_ms", round(HANDSHAKE_SECONDS * 1000)),
        ("grpc.keepalive_time_ms", round(keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", timeout),
        # It is this that ends a connection on which a ping is not answered; by itself it is a minute.
        ("grpc.http2.ping_timeout_ms", timeout),
        # By itself the third ping in a row waits for a minute.
        ("grpc.http2.max_pings_without_data", 0),
        # Of the server's pings and of the clients' alike.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", round(SHORTEST_PING_SECONDS * 1000)),
    ]
