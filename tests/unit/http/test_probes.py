"""/healthz and /readyz whatever else happens: a loop that hangs, connections that say nothing."""

import asyncio
import http.client
import socket
import threading
import time

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from xai_sidecar.command.heartbeat import Heartbeat
from xai_sidecar.http.server import HttpServer, _Server


def probe(port, path="/healthz"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def serve(request):
    def serve(alive=lambda: True):
        server = HttpServer("127.0.0.1", 0, CollectorRegistry(), is_alive=alive, is_ready=lambda: True)
        request.addfinalizer(server.close)
        return server

    return serve


async def test_a_loop_that_hangs_is_told_by_the_probe_and_one_that_goes_on_is_well_again(serve):
    heartbeat = Heartbeat(beat_seconds=0.05, longest_seconds=0.4)
    server, seen = serve(lambda: heartbeat.alive), []
    heartbeat.start()
    try:
        await asyncio.sleep(0.2)
        hung = threading.Event()

        def look():
            end = time.monotonic() + 10
            while time.monotonic() < end and 503 not in seen:
                seen.append(probe(server.port))
                time.sleep(0.02)
            hung.set()

        threading.Thread(target=look).start()
        with capture_logs() as logs:
            hung.wait(20)  # and not await: this is what hangs
        assert seen[0] == 200
        assert seen[-1] == 503
        assert [each["event"] for each in logs] == ["event_loop_hangs"]
        end = time.monotonic() + 10
        while not heartbeat.alive and time.monotonic() < end:
            await asyncio.sleep(0.02)
        assert await asyncio.to_thread(probe, server.port) == 200
    finally:
        heartbeat.stop()


async def test_a_loop_that_is_blocked_for_a_while_has_its_lag_measured():
    late = []
    heartbeat = Heartbeat(beat_seconds=0.02, late=late.append)
    heartbeat.start()
    try:
        while len(late) < 3:
            await asyncio.sleep(0.01)
        before = len(late)
        time.sleep(0.5)  # and not await: this is what blocks
        while len(late) < before + 3:
            await asyncio.sleep(0.01)
    finally:
        heartbeat.stop()
    assert max(late[before:]) > 0.45
    assert min(late) >= 0


async def test_a_busy_loop_is_alive():
    heartbeat = Heartbeat(beat_seconds=0.05, longest_seconds=1.0)
    heartbeat.start()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        await asyncio.sleep(0)
        assert heartbeat.alive
    heartbeat.stop()


def test_connections_that_say_nothing_keep_no_probe_out(serve, monkeypatch):
    monkeypatch.setattr(_Server, "most_connections", 5)
    server = serve()
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(30)]
    try:
        for one in idle[::2]:
            one.sendall(b"GET /healthz HTT")  # and no more
        assert [probe(server.port) for _ in range(10)] == [200] * 10
        assert idle[0].recv(10) == b""
        threads = [thread.name for thread in threading.enumerate() if "process_request_thread" in thread.name]
        assert len(threads) <= 12
    finally:
        for one in idle:
            one.close()


def test_a_connection_that_dawdles_ends(serve, monkeypatch):
    """A byte now and then keeps no thread for ever."""
    monkeypatch.setattr(_Server, "longest_seconds", 0.3)
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        end = time.monotonic() + 10
        with pytest.raises(OSError):
            while time.monotonic() < end:
                slow.sendall(b"G")
                time.sleep(0.05)
    assert time.monotonic() < end
    assert probe(server.port) == 200
