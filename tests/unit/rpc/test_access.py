"""Who a call is from, as gRPC tells it."""

import hashlib
from types import SimpleNamespace

import grpc
import pytest
from prometheus_client import CollectorRegistry

from xai_sidecar.rpc.access import AccessInterceptor, certificate_names, peer_host
from xai_sidecar.serving.access import Access
from xai_sidecar.serving.call_records import CallRecords
from xai_sidecar.serving.callers import current_caller
from xai_sidecar.telemetry import Telemetry


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:127.0.0.1:33106", "127.0.0.1"),
        ("ipv6:%5B::1%5D:33106", "::1"),
        ("ipv6:[fe80::1%25eth0]:33106", "fe80::1%eth0"),
        ("unix:/run/socket", "unix"),
        ("", ""),
    ],
)
def test_the_host_of_a_peer(peer, host):
    assert peer_host(peer) == host


def test_the_common_name_comes_first():
    shown = {"x509_common_name": [b"shop"], "x509_subject_alternative_name": [b"shop.example.com", b"\xff"]}
    assert certificate_names(shown) == ("shop", "shop.example.com", "\ufffd")
    assert certificate_names({}) == ()


class Call:
    """A call's context."""

    def auth_context(self):
        return {}

    def peer(self):
        return "ipv4:10.0.0.1:1234"


@pytest.mark.parametrize("way", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_handlers_of_all_kinds_know_who_called(way):
    async def stream(request, context):
        yield request, current_caller().name

    async def once(request, context):
        return request, current_caller().name

    async def continuation(details):
        behave = stream if way.endswith("stream") else once
        return getattr(grpc, f"{way}_rpc_method_handler")(behave, bytes, repr)

    interceptor = AccessInterceptor(Access(), CallRecords(Telemetry(CollectorRegistry(), [])))
    method = "/xai.v1.ExplanationService/Predict"
    handler = await interceptor.intercept_service(continuation, SimpleNamespace(method=method, invocation_metadata=()))
    assert (handler.request_deserializer, handler.response_serializer) == (bytes, repr)
    answer = getattr(handler, way)("request", Call())
    answers = [each async for each in answer] if way.endswith("stream") else [await answer]
    assert answers == [("request", "10.0.0.1")]


class AbortedError(Exception):
    """What ends a call."""


@pytest.mark.parametrize("tokens", [False, True])
async def test_a_method_without_a_role_is_refused(tokens, tmp_path):
    """Whoever asks, and though it is served; what is not served is for gRPC to say."""
    path = tmp_path / "tokens.toml"
    path.write_text(f'[[tokens]]\nname = "all"\nsha256 = "{hashlib.sha256(b"t").hexdigest()}"\nroles = ["read"]\n')
    access = Access(path if tokens else None)
    interceptor = AccessInterceptor(access, CallRecords(Telemetry(CollectorRegistry(), [])))
    details = SimpleNamespace(method="/new.Service/Method", invocation_metadata=(("authorization", "Bearer t"),))

    async def behave(request, context):
        raise AssertionError("it is called")

    async def served(details):
        return grpc.unary_unary_rpc_method_handler(behave)

    async def unknown(details):
        return None

    class Refused(Call):
        def time_remaining(self):
            return None

        async def abort(self, code, message, trailing_metadata):
            raise AbortedError(code, message)

    handler = await interceptor.intercept_service(served, details)
    with pytest.raises(AbortedError) as caught:
        await (handler.stream_stream or handler.unary_unary)("request", Refused())
    assert caught.value.args == (
        grpc.StatusCode.PERMISSION_DENIED, "Method is a method that no role allows. Call another one.",
    )  # fmt: skip
    if not tokens:
        assert await interceptor.intercept_service(unknown, details) is None
