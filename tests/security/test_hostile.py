"""Strangers who connect and say nothing, or too slowly, or too much: nobody else notices, and memory stays as it is."""

import contextlib
import socket
import ssl
import threading
import time
from pathlib import Path

import grpc
import pytest
from guarded_server import guarded

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc

SILENT = 500
CLASSES = 2000
MIB = 2**20
UNREAD = [("grpc.http2.bdp_probe", 0)]
"""A connection whose window stays small, so that an answer that nobody reads does not fit in it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    overrides = (
        "server.auth.tokens=tokens.toml",
        "server.stall_seconds=1",
        f"model.arguments={{classes={CLASSES}}}",
    )
    with guarded(tmp_path_factory.mktemp("hostile"), *overrides) as server:
        yield server


@pytest.fixture
def unharmed(server, bearer, image):
    """That the server answers, on a new connection, and holds little more memory: allocators keep some."""

    def check():
        with server.channel() as channel:
            stub = pb_grpc.ExplanationServiceStub(channel)
            stub.Predict(pb.PredictRequest(images=[image]), timeout=20, metadata=bearer("all"))
        assert server.process.poll() is None
        return resident(server)

    check()
    before = check()
    yield check
    assert check() < before + 128 * MIB


def resident(server):
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096


def connected(address, stack):
    host, _, port = address.rpartition(":")
    return stack.enter_context(socket.create_connection((host, int(port)), timeout=20))


def encrypted(server, address, stack, protocols):
    """A connection behind the handshake."""
    context = ssl.create_default_context(cadata=server.authority.pem.decode())
    context.set_alpn_protocols(protocols)
    return stack.enter_context(context.wrap_socket(connected(address, stack), server_hostname="127.0.0.1"))


@pytest.mark.parametrize("port", ["grpc", "http"])
def test_connections_that_say_nothing(server, unharmed, port):
    with contextlib.ExitStack() as stack:
        for _ in range(SILENT):
            connected(getattr(server, port), stack)
        unharmed()


@pytest.mark.parametrize(("port", "protocol"), [("grpc", "h2"), ("http", "http/1.1")])
def test_requests_that_come_by_the_byte(server, unharmed, port, protocol):
    head = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" if port == "grpc" else b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n"
    with contextlib.ExitStack() as stack:
        slow = [encrypted(server, getattr(server, port), stack, [protocol]) for _ in range(20)]
        for number in range(8):
            for each in slow:
                each.sendall(head[number : number + 1])
            time.sleep(0.02)
        unharmed()


def test_bodies_that_never_come(server, unharmed, bearer):
    token = dict(bearer("all"))["authorization"]
    head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 15000000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            encrypted(server, server.http, stack, ["http/1.1"]).sendall(head.encode() + b"{")
        unharmed()


def test_a_body_without_a_token_is_not_waited_for(server, unharmed):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 15000000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        one = encrypted(server, server.http, stack, ["http/1.1"])
        one.sendall(head)
        assert one.recv(100).startswith(b"HTTP/1.1 401 ")


def test_answers_that_nobody_reads(server, unharmed, bearer, image):
    whole = pb.PredictRequest(images=[image] * 4, top_k=CLASSES)
    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(server.channel(options=UNREAD)) for _ in range(8)]
        method = "/xai.v1.ExplanationService/Predict"
        waiting = [
            channel.unary_stream(method)(whole.SerializeToString(), metadata=bearer("all")) for channel in channels
        ]
        end = time.monotonic() + 30
        while sum('"stalled"' in line for line in server.log) < len(waiting):
            assert time.monotonic() < end
            time.sleep(0.05)
        unharmed()


@pytest.mark.parametrize(
    "metadata",
    [
        [("x-bomb", "x" * 100_000)],
        [(f"x-bomb-{number}", "x" * 10) for number in range(5000)],
        [("authorization", f"Bearer {'x' * 7000}")],
        [("authorization", "Bearer one"), ("authorization", "Bearer two")] * 50,
        [("x-bomb-bin", bytes(range(256)) * 100)],
    ],
)
def test_metadata_bombs(server, unharmed, image, metadata):
    with server.channel() as channel:
        stub = pb_grpc.ExplanationServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(pb.PredictRequest(images=[image]), timeout=20, metadata=metadata)
    assert caught.value.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED)
    unharmed()


@pytest.mark.parametrize(
    "bomb",
    [
        b"X-Bomb: " + b"x" * 2_000_000 + b"\r\n",
        b"".join(b"X-Bomb-%d: x\r\n" % number for number in range(100_000)),
        b"Authorization: Bearer " + b"x" * 60_000 + b"\r\n",
        b"X-Bomb" + b"y" * 2_000_000,
    ],
    ids=["long", "many", "token", "name"],
)
def test_header_bombs(server, unharmed, bomb):
    with contextlib.ExitStack() as stack:
        one = encrypted(server, server.http, stack, ["http/1.1"])
        thread = threading.Thread(
            target=_sent, args=(one, b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + bomb + b"\r\n\r\n")
        )
        thread.start()
        with contextlib.suppress(ConnectionError):
            answer = one.recv(1000)
            assert answer == b"" or answer[9:12] in (b"400", b"401", b"431")
        thread.join(20)
        assert not thread.is_alive()
    unharmed()


def _sent(one, data):
    with contextlib.suppress(OSError):
        one.sendall(data)
