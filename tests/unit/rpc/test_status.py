"""A failed call's status: that it fits, and when gRPC may make the call again."""

import base64
from urllib.parse import quote

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry

from xai_proto import explanation_pb2 as pb
from xai_sidecar.errors import (
    DeviceLostError,
    InvalidRequestError,
    OverloadedError,
    ShuttingDownError,
    StoreError,
)
from xai_sidecar.rpc.interceptors import CallInterceptor
from xai_sidecar.rpc.status import pushback_milliseconds, status_of
from xai_sidecar.serving.call_records import CallRecords
from xai_sidecar.telemetry import Telemetry

RETRYING = """{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "9s",
"maxBackoff": "9s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]}}]}"""


@pytest.mark.parametrize("character", ["x", "\n", "\xe9", "\N{SNOWMAN}", "\N{SNAKE}", "\ud800"])
def test_a_status_fits_into_metadata(character):
    """Of 8 KiB, with the message percent-encoded and the details, which have it twice, in base64."""
    status = status_of(InvalidRequestError(character * 10_000, field="images[0].model_input.shape"), "x" * 128)
    message = len(quote(status.message, safe=""))
    details = len(base64.b64encode(status.SerializeToString()))
    assert message + details < 6000
    assert status.message.endswith(" …")


def test_a_retry_is_asked_for_no_earlier_than_it_may_help_and_not_of_all_callers_at_once():
    waits = {pushback_milliseconds(OverloadedError("full", retry_seconds=0.2), None) for _ in range(50)}
    assert min(waits) >= 200
    assert max(waits) <= 300
    assert len(waits) > 10


@pytest.mark.parametrize(
    ("error", "left", "expected"),
    [
        (OverloadedError("full", retry_seconds=1.0), 0.9, -1),  # the deadline comes first
        (OverloadedError("for good"), None, -1),
        (OverloadedError("too late for this one", retry_seconds=1.0, repeatable=False), 60.0, -1),
        (DeviceLostError("gone"), 10.0, -1),  # the next server would lose its device to the same request
        (ShuttingDownError("draining"), 10.0, None),  # the policy's own backoff: another server may be there
        (InvalidRequestError("wrong"), 10.0, None),
    ],
)
def test_where_a_retry_is_no_use_gRPC_is_told_so(error, left, expected):  # noqa: N802
    assert pushback_milliseconds(error, left) == expected


@pytest.fixture
async def refusing():
    """A server whose calls are refused with the errors of a list; its address, the list, and the calls seen."""
    errors, attempts = [], []

    async def refuse(request, context):
        attempts.append(dict(context.invocation_metadata()).get("grpc-previous-rpc-attempts", "0"))
        if errors:
            raise errors.pop(0)
        return pb.PredictResponse()

    async def refuse_stream(request, context):
        yield pb.PredictStreamResponse(request_id=(await refuse(request, context)).request_id)

    server = grpc.aio.server(interceptors=[CallInterceptor(CallRecords(Telemetry(CollectorRegistry(), [])))])
    handlers = {
        "Predict": grpc.unary_unary_rpc_method_handler(refuse),
        "PredictStream": grpc.unary_stream_rpc_method_handler(refuse_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("xai.v1.ExplanationService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}", errors, attempts
    await server.stop(None)


@pytest.mark.parametrize("method", ["Predict", "PredictStream"])
async def test_any_client_of_gRPC_comes_back_when_the_server_says(refusing, method):  # noqa: N802
    """Its own policy would have it wait for nine seconds."""
    address, errors, attempts = refusing
    async with grpc.aio.insecure_channel(address, [("grpc.service_config", RETRYING)]) as channel:
        path = f"/xai.v1.ExplanationService/{method}"

        async def call():
            if method == "Predict":
                await channel.unary_unary(path)(b"", timeout=5)
            else:
                assert len([each async for each in channel.unary_stream(path)(b"", timeout=5)]) == 1

        errors[:] = [OverloadedError("full", retry_seconds=0.02), StoreError("no disk", retry_seconds=0.02)]
        await call()
        assert attempts == ["0", "1", "2"]
        for refusal in (OverloadedError("full", retry_seconds=60.0), DeviceLostError("gone")):
            attempts.clear()
            errors[:] = [refusal] * 4
            with pytest.raises(grpc.aio.AioRpcError, match=refusal.message):
                await call()
            assert attempts == ["0"]
