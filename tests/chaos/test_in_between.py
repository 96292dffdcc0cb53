"""What happens between client and server: connections that die without a word, pings, gateways that give up."""

import asyncio
import threading
import time
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc._cython import cygrpc

from xai_client import AsyncClient, Client, DeadlineError, Explain, Predicted, UnavailableError
from xai_client.channel import channel_options
from xai_sidecar.rpc.channel import server_options

pytestmark = pytest.mark.timed

PIXELS = np.zeros((3, 32, 32), np.float32)
LONG = Explain("rise", masks=100_000, budget=50)
QUICK_TO_NOTICE = [("grpc.keepalive_time_ms", 1000), ("grpc.keepalive_timeout_ms", 500)]
SOON = 30
"""Seconds; on an idle machine it takes two."""


@pytest.fixture(scope="module")
def between(load_helper):
    return load_helper("relay")


@pytest.fixture(scope="module")
def server(start_misbehaving):
    with start_misbehaving() as running:
        yield running


@pytest.fixture
def make(between):
    """Makes relays and gateways that are closed at the end."""
    made = []

    def make(kind, *args, **kwargs):
        made.append(getattr(between, kind)(*args, **kwargs))
        return made[-1]

    yield make
    for each in made:
        each.close()


# ------------------------------------------------------------------------------------------- silent connections


def test_the_defaults_find_a_dead_connection_within_twenty_seconds():
    for options in (channel_options((), "server:1"), server_options(1, 1)):
        chosen = dict(options)
        assert chosen["grpc.keepalive_timeout_ms"] == chosen["grpc.http2.ping_timeout_ms"]
        assert chosen["grpc.keepalive_time_ms"] + chosen["grpc.http2.ping_timeout_ms"] < 20_000
        assert chosen["grpc.http2.max_pings_without_data"] == 0
    # A server of somebody else's may punish pings without calls.
    assert "grpc.keepalive_permit_without_calls" not in dict(channel_options((), "server:1"))
    assert chosen["grpc.http2.min_ping_interval_without_data_ms"] <= 1000


def test_grpc_knows_the_options():
    """It takes any, and passes over those that it does not know."""
    library = Path(cygrpc.__file__).read_bytes()
    named = {name for name, _ in [*channel_options((), "server:1"), *server_options(1, 1)]}
    assert len(named) > 10
    assert [name for name in sorted(named) if name.encode() + b"\0" not in library] == []


def in_a_call(client, relay):
    threading.Timer(0.7, relay.go_silent).start()
    client.predict(PIXELS, explain=LONG)


def in_a_stream(client, relay):
    for event in client.stream(PIXELS, explain=LONG, progress_interval=60):
        if isinstance(event, Predicted):
            relay.go_silent()


def between_calls(client, relay):
    client.predict(PIXELS)
    relay.go_silent()
    client.predict(PIXELS)


async def in_an_async_call(client, relay):
    threading.Timer(0.7, relay.go_silent).start()
    await client.predict(PIXELS, explain=LONG)


async def in_an_async_stream(client, relay):
    async for event in client.stream(PIXELS, explain=LONG, progress_interval=60):
        if isinstance(event, Predicted):
            relay.go_silent()


def lose_and_find(lose, server, relay):
    with Client(relay.address, timeout=60, options=QUICK_TO_NOTICE) as client:
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="was lost after the request had been sent") as caught:
            lose(client, relay)
        assert "not repeated" in caught.value.message
        while time.monotonic() - started < SOON:
            with suppress(UnavailableError):  # the dead connection may still be closing
                assert client.predict(PIXELS).classes
                break
        return time.monotonic() - started


async def lose_and_find_async(lose, server, relay):
    async with AsyncClient(relay.address, timeout=60, options=QUICK_TO_NOTICE) as client:
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="was lost after the request had been sent"):
            await lose(client, relay)
        while time.monotonic() - started < SOON:
            with suppress(UnavailableError):
                assert (await client.predict(PIXELS)).classes
                break
        return time.monotonic() - started


async def test_a_connection_that_dies_without_a_word_is_replaced(server, make):
    """Whatever the client was doing; all of it at a time, since it takes some seconds each."""
    losing = [
        asyncio.to_thread(lose_and_find, lose, server, make("Relay", server.grpc))
        for lose in (in_a_call, in_a_stream, between_calls)
    ]
    losing += [
        lose_and_find_async(lose, server, make("Relay", server.grpc)) for lose in (in_an_async_call, in_an_async_stream)
    ]
    assert max(await asyncio.gather(*losing)) < SOON


def test_a_new_client_gets_a_connection_of_its_own(server, make):
    """One process, two clients: the second does not inherit the dead connection of the first."""
    relay = make("Relay", server.grpc)
    with Client(relay.address) as first:
        first.predict(PIXELS)
        relay.go_silent()
        with Client(relay.address, timeout=5) as second:
            assert second.predict(PIXELS).classes


async def waiting_server(**keepalive):
    """A server with the sidecar's options whose one call never ends; events tell of its begin and its cancellation."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(request, context):
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(wait)

    server = grpc.aio.server(options=server_options(2**20, 8, **keepalive))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}", begun, cancelled


async def test_the_server_does_not_go_on_for_a_caller_who_is_gone_without_a_word(make):
    server, address, begun, cancelled = await waiting_server(keepalive_seconds=1, ping_timeout_seconds=0.5)
    relay = make("Relay", address)
    async with grpc.aio.insecure_channel(relay.address) as channel:
        call = channel.unary_unary("/any/thing")(b"", timeout=60)
        await asyncio.wait_for(begun.wait(), 20)
        relay.go_silent()
        await asyncio.wait_for(cancelled.wait(), SOON)
        assert not call.done()
    await server.stop(None)


async def test_a_client_that_pings_often_keeps_its_long_call():
    """The fourth ping within five minutes is one too many for a server with gRPC's own defaults: pings of a second."""
    server, address, _, _ = await waiting_server()
    options = [("grpc.keepalive_time_ms", 1000), ("grpc.http2.max_pings_without_data", 0)]
    async with grpc.aio.insecure_channel(address, options) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            await channel.unary_unary("/any/thing")(b"", timeout=6.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await server.stop(None)


# ----------------------------------------------------------------------------------------------------- gateways


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_a_gateway_that_gives_up_has_nothing_run_again(kind, server, make):
    gateway = make("Gateway", 504, after=0.7, target=server.grpc)
    client = kind(gateway.address)
    with pytest.raises(DeadlineError, match=r"HTTP 504.*grpc_read_timeout"):
        await settle(client.predict, PIXELS, explain=LONG)
    await settle(client.close)
    assert gateway.calls == 1


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_a_request_that_kills_the_server_is_not_sent_to_the_next(kind, make):
    gateway = make("Gateway", None, after=0.2)
    client = kind(gateway.address)
    with pytest.raises(UnavailableError, match="lost after the request had been sent"):
        await settle(client.predict, PIXELS)
    assert gateway.calls == 1
    # What costs nothing may come again.
    with pytest.raises(UnavailableError, match="lost after the request had been sent"):
        await settle(client.model_info)
    assert 1 + 1 < gateway.calls <= 1 + 5
    await settle(client.close)


async def settle(method, *args, **kwargs):
    if asyncio.iscoroutinefunction(method):
        return await method(*args, **kwargs)
    return await asyncio.to_thread(method, *args, **kwargs)
