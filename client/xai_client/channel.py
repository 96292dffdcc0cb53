"""A client's connection: sizes, how a dead one is found, which addresses go through no proxy, and when it is opened."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

import grpc
import grpc.aio

from xai_client import fork
from xai_client.proxy import is_local
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_proto import quality_pb2_grpc as qpb_grpc

MAX_MESSAGE_BYTES: Final = 64 * 2**20
KEEPALIVE_MILLISECONDS: Final = 10_000
"""While a call is in progress, the server is pinged when nothing has come for so long."""
PING_TIMEOUT_MILLISECONDS: Final = 5_000
"""How long the answer may take; then the connection is dead and a new one is made. Ten and five are less than twenty
seconds, within which a client finds its way again."""
RECONNECT_MILLISECONDS: Final = 5_000

ChannelOptions = Sequence[tuple[str, Any]]


def channel_options(options: ChannelOptions, address: str) -> list[tuple[str, Any]]:
    """The arguments of a channel, see gRPC's `grpc_types.h`; those of the caller win.

    Args:
        options: The caller's.
        address: Where the channel leads.
    """
    defaults: dict[str, Any] = {
        "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
        "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
        # Without a policy gRPC repeats only what nobody has seen; all else is for `Call.retry_delay` to decide.
        "grpc.enable_retries": 1,
        "grpc.per_rpc_retry_buffer_size": MAX_MESSAGE_BYTES,
        # Otherwise all clients of a process share one connection, and a new client gets a dead one, too.
        "grpc.use_local_subchannel_pool": 1,
        # No pings without calls, which servers of other people might punish.
        "grpc.keepalive_time_ms": KEEPALIVE_MILLISECONDS,
        "grpc.keepalive_timeout_ms": PING_TIMEOUT_MILLISECONDS,
        # By itself the third ping in a row waits for a minute.
        "grpc.http2.max_pings_without_data": 0,
        # gRPC's own default of two minutes would keep a client away long after the server is back, and its twenty
        # seconds for one attempt would be spent on a path that is still dead.
        "grpc.max_reconnect_backoff_ms": RECONNECT_MILLISECONDS,
        "grpc.min_reconnect_backoff_ms": RECONNECT_MILLISECONDS,
    }
    if is_local(address):
        defaults["grpc.enable_http_proxy"] = 0
    chosen = {**defaults, **dict(options)}
    # It is this that ends a connection on which a ping is not answered; by itself it is a minute.
    chosen.setdefault("grpc.http2.ping_timeout_ms", chosen["grpc.keepalive_timeout_ms"])
    return list(chosen.items())


class LazyChannel:
    """A channel, opened at its first use, and anew in a forked child.

    Args:
        address: Where it leads.
        options: gRPC's channel arguments.
        credentials: For TLS; None for no encryption.
        asynchronous: Whether it is one of `grpc.aio`, which belongs to the event loop in which it is opened.

    Attributes:
        loop: The event loop of an asynchronous one; None before it is opened.
    """

    def __init__(
        self,
        address: str,
        options: ChannelOptions,
        credentials: grpc.ChannelCredentials | None,
        *,
        asynchronous: bool = False,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._address = address
        self._options = options
        self._credentials = credentials
        self._asynchronous = asynchronous
        self._channel: Any = None
        self._stub: Any = None
        self._generation = 0

    def stub(self) -> Any:
        """Has the methods of all services.

        Raises:
            ForkedError: No channel can be opened in this process.
        """
        with fork.opening() as generation:
            if self._channel is None or self._generation != generation:
                self.loop = asyncio.get_running_loop() if self._asynchronous else None
                self._channel = self._open()
                fork.opened(self._channel, asynchronous=self._asynchronous)
                stubs: list[Any] = [pb_grpc.ExplanationServiceStub, qpb_grpc.QualityServiceStub]
                methods = [vars(make_stub(self._channel)) for make_stub in stubs]
                self._stub = SimpleNamespace(**{name: call for each in methods for name, call in each.items()})
                self._generation = generation
            return self._stub

    def opened(self) -> Any:
        """The channel of gRPC, if it was opened in this process; else None."""
        return self._channel if self._generation == fork.generation() else None

    def _open(self) -> Any:
        api: Any = grpc.aio if self._asynchronous else grpc
        if self._credentials is None:
            return api.insecure_channel(self._address, self._options)
        return api.secure_channel(self._address, self._credentials, self._options)
