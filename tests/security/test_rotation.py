"""Certificates and tokens that are replaced while calls come: none of them fails."""

import ssl
import threading
import time

import certificates
import grpc
import pytest
from cryptography import x509
from guarded_server import guarded, token_of, write_tokens

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc

ROTATIONS = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of these tests alone, with mutual TLS and tokens."""
    overrides = ("server.tls.client_ca=ca.pem", "server.auth.tokens=tokens.toml")
    with guarded(tmp_path_factory.mktemp("rotated"), *overrides) as server:
        yield server


class Load:
    """Calls on one connection that stays, and on a new one for each, until it is ended.

    Attributes:
        failures: What went wrong.
        counts: Calls that were answered, on the connection that stays and on new ones.
    """

    def __init__(self, server, pair, metadata, image):
        self.failures, self.counts = [], [0, 0]
        self._arguments = server, pair, metadata, pb.PredictRequest(images=[image])
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(new,)) for new in (False, True)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def _call(self, new):
        server, pair, metadata, request = self._arguments
        kept = server.channel(pair)
        while not self._ended.is_set():
            channel = server.channel(pair) if new else kept
            try:
                pb_grpc.ExplanationServiceStub(channel).Predict(request, timeout=30, metadata=metadata)
                self.counts[new] += 1
            except grpc.RpcError as error:
                self.failures.append((new, error.code(), error.details()))
            finally:
                if new:
                    channel.close()
        kept.close()


def eventually(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def taken(server):
    """How often the server has taken new files."""
    return sum('"files_taken"' in line for line in server.log)


def shown(server):
    """The certificate that a new connection is shown, by HTTP as by gRPC: its serial number."""
    serials = set()
    for address in (server.grpc, server.http):
        host, _, port = address.rpartition(":")
        pem = ssl.get_server_certificate((host, int(port))).encode()
        serials.add(x509.load_pem_x509_certificate(pem).serial_number)
    return serials


def test_a_rotation_under_load_loses_no_call(server, bearer, image):
    pair = server.authority.issue("caller")
    with Load(server, pair, bearer("all"), image) as load:
        for number in range(ROTATIONS):
            before, answered = taken(server), list(load.counts)
            certificates.write_pair(server.folder, server.authority.issue(f"server {number}"))
            tokens = {"all": token_of("all"), "nothing but predict": f"another {number}"}
            write_tokens(server.folder / "tokens.toml", tokens)
            eventually(lambda before=before: taken(server) >= before + 2)
            eventually(lambda answered=answered: all(map(int.__gt__, load.counts, answered)))
    assert load.failures == []
    assert min(load.counts) > ROTATIONS


def test_new_connections_are_shown_the_new_certificate(closed):
    """Without a client's certificate, which Python's helper has none of."""
    before = shown(closed)
    assert len(before) == 1
    certificates.write_pair(closed.folder, closed.authority.issue("another"))
    eventually(lambda: len(shown(closed)) == 1 and shown(closed) != before)


def test_a_ca_that_is_taken_back_lets_nobody_in_any_more(server, bearer, image):
    """But connections stay that are there."""
    others = certificates.Authority("others")
    pair, new = server.authority.issue("caller"), others.issue("caller")
    request, metadata = pb.PredictRequest(images=[image]), bearer("all")

    def gets_in(pair):
        with server.channel(pair) as channel:
            try:
                pb_grpc.ExplanationServiceStub(channel).Predict(request, timeout=10, metadata=metadata)
            except grpc.RpcError:
                return False
            return True

    with server.channel(pair) as channel:
        stub = pb_grpc.ExplanationServiceStub(channel)
        stub.Predict(request, timeout=10, metadata=metadata)
        assert not gets_in(new)
        (server.folder / "ca.pem").write_bytes(others.pem)
        eventually(lambda: gets_in(new))
        assert not gets_in(pair)
        stub.Predict(request, timeout=10, metadata=metadata)
