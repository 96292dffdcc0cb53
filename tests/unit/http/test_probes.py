"""/healthz and /readyz whatever else happens: a loop that hangs, connections that say nothing."""

import asyncio
import contextlib
import gzip
import http.client
import socket
import threading
import time

import pytest
from prometheus_client import CollectorRegistry, Gauge
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from xai_sidecar.command.heartbeat import Heartbeat
from xai_sidecar.http.application import application
from xai_sidecar.http.connections import ConnectionLimits
from xai_sidecar.http.probes import probe_routes
from xai_sidecar.http.server import HttpServer


def probe(port, path="/healthz"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def serve(request):
    def serve(alive=lambda: True, *, routes=(), middleware=(), **limits):
        probes = probe_routes(CollectorRegistry(), is_alive=alive, unready=str)
        app = application([*probes, *routes], middleware)
        server = HttpServer("127.0.0.1", 0, app, ConnectionLimits(**limits))
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


def answer_of(connection):
    """The body of the answer that comes next."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.read()


def is_closed(connection):
    """Whether the other side has closed a connection, within ten seconds."""
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(10) == b""
    return True


def test_connections_that_say_nothing_keep_no_probe_out(serve):
    server = serve(most_waiting=5)
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(30)]
    try:
        for one in idle[::2]:
            one.sendall(b"GET /healthz HTT")  # and no more
        assert [probe(server.port) for _ in range(10)] == [200] * 10
        assert is_closed(idle[0])
    finally:
        for one in idle:
            one.close()


def test_a_connection_that_dawdles_ends(serve):
    """A byte now and then keeps no connection for ever."""
    server = serve(head_seconds=0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        end = time.monotonic() + 10
        with pytest.raises(OSError):
            while time.monotonic() < end:
                slow.sendall(b"G")
                time.sleep(0.05)
    assert time.monotonic() < end
    assert probe(server.port) == 200


def test_a_body_that_does_not_arrive_ends_its_connection(serve):
    async def take(request):
        return PlainTextResponse(str(len(await request.body())))

    server = serve(routes=[Route("/take", take, methods=["POST"])], stall_seconds=0.3, message_bytes=0)
    head = b"POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as quick:
        quick.sendall(head + b"abc")
        assert answer_of(quick) == b"3"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        slow.sendall(head + b"a")
        assert is_closed(slow)
    assert probe(server.port) == 200


def test_an_answer_that_is_not_read_ends_its_connection(serve):
    async def give(_):
        return PlainTextResponse(bytes(32 * 2**20))

    server = serve(routes=[Route("/give", give)], stall_seconds=-200)  # that is, 32 MiB take no time
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        slow.sendall(b"GET /give HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(1.5)
        with contextlib.suppress(ConnectionResetError):
            received = 0
            while data := slow.recv(2**20):
                received += len(data)
            assert received < 32 * 2**20
    assert probe(server.port) == 200


def test_a_call_in_progress_is_no_connection_that_waits(serve):
    """However many connections come meanwhile, and however long it takes."""
    begun = threading.Event()

    async def work(_):
        begun.set()
        await asyncio.sleep(1)
        return PlainTextResponse("done")

    server = serve(routes=[Route("/work", work)], most_waiting=2, head_seconds=0.3, stall_seconds=0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as patient:
        patient.sendall(b"GET /work HTTP/1.1\r\nHost: x\r\n\r\n")
        assert begun.wait(10)
        others = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(5)]
        assert answer_of(patient) == b"done"
        for one in others:
            one.close()


def test_a_connection_is_used_again(serve):
    server = serve(head_seconds=0.2, stall_seconds=0.2)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    for _ in range(3):
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"alive\n")
        kept = connection.sock
        time.sleep(0.5)
    assert connection.sock is kept
    connection.close()


def test_middleware_is_around_everything_also_what_is_not_there(serve):
    class Refusing:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            named = dict(scope["headers"]).get(b"x-name")
            await (self.app if named else PlainTextResponse("Who are you?", 401))(scope, receive, send)

    server = serve(middleware=[Middleware(Refusing)])
    assert probe(server.port) == probe(server.port, "/nothing") == 401


def test_what_fails_is_logged_and_answered_and_the_next_one_served(serve):
    async def fail(_):
        raise RuntimeError("as it happens")

    server = serve(routes=[Route("/fail", fail)])
    with capture_logs() as logs:
        assert probe(server.port, "/fail") == 500
    assert [(each["event"], each["path"]) for each in logs] == [("request_failed", "/fail")]
    assert probe(server.port) == 200


def test_metrics_are_compressed_and_filtered_for_those_who_ask(serve):
    registry = CollectorRegistry()
    for name in ("one", "two"):
        Gauge(name, "A number.", registry=registry)
    app = application(probe_routes(registry, is_alive=bool, unready=lambda: "not yet"))
    server = HttpServer("127.0.0.1", 0, app)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.request("GET", "/metrics?name[]=two", headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        assert answer.getheader("Content-Encoding") == "gzip"
        text = gzip.decompress(answer.read()).decode()
        assert "two 0.0" in text
        assert "one" not in text
        connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
        answer = connection.getresponse()
        assert answer.getheader("Content-Type").startswith("application/openmetrics-text")
        assert answer.read().endswith(b"# EOF\n")
        connection.request("POST", "/healthz")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Allow")) == (405, "GET, HEAD")
        connection.close()
    finally:
        server.close()
