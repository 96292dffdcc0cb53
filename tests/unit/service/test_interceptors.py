"""Around every call: whose id it goes by."""

import base64
from types import SimpleNamespace
from urllib.parse import quote

import grpc
import pytest
from prometheus_client import CollectorRegistry

from xai_proto import explanation_pb2 as pb
from xai_sidecar.errors import InvalidRequestError
from xai_sidecar.service.interceptors import REQUEST_ID, CallInterceptor, request_id_of, status_of
from xai_sidecar.telemetry import Telemetry


class Call:
    """A call's context."""

    def __init__(self, **metadata):
        self._given = tuple(metadata.items())
        self._trailing = ()
        self.written = []

    def invocation_metadata(self):
        return tuple((name.replace("_", "-"), value) for name, value in self._given)

    def set_trailing_metadata(self, metadata):
        self._trailing = metadata

    def trailing_metadata(self):
        return self._trailing

    def time_remaining(self):
        return None

    async def write(self, message):
        self.written.append(message)


async def answered(method, request, context):
    """Calls a method that answers with the id that the call goes by."""

    async def predict(request, context):
        return pb.PredictResponse(request_id=request_id_of(context))

    async def stream(request, context):
        yield pb.PredictStreamResponse(request_id=request_id_of(context))

    async def continuation(details):
        if method == "PredictStream":
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(predict)

    interceptor = CallInterceptor(Telemetry(CollectorRegistry(), []))
    details = SimpleNamespace(method=f"/xai.v1.ExplanationService/{method}")
    handler = await interceptor.intercept_service(continuation, details)
    if handler.response_streaming:
        await handler.unary_stream(request.SerializeToString(), context)
        answer = pb.PredictStreamResponse.FromString(context.written.pop()).request_id
    else:
        answer = pb.PredictResponse.FromString(
            await handler.unary_unary(request.SerializeToString(), context)
        ).request_id
    assert context.trailing_metadata() == ((REQUEST_ID, answer),)
    assert await interceptor.finished(1)
    return answer


@pytest.mark.parametrize("method", ["Predict", "PredictStream"])
async def test_a_call_goes_by_the_requests_own_id(method):
    def asked(request_id):
        request = pb.PredictRequest(request_id=request_id)
        return request if method == "Predict" else pb.PredictStreamRequest(request=request)

    assert await answered(method, asked("mine"), Call(x_request_id="theirs")) == "mine"
    assert await answered(method, asked(""), Call(x_request_id="theirs")) == "theirs"
    assert await answered(method, asked("not good"), Call(x_request_id="theirs")) == "theirs"
    made_up = await answered(method, asked(""), Call())
    assert len(made_up) == 32
    assert await answered(method, asked("not good"), Call(x_request_id="not good")) != made_up


@pytest.mark.parametrize("character", ["x", "\n", "\xe9", "\N{SNOWMAN}", "\N{SNAKE}", "\ud800"])
def test_a_status_fits_into_metadata(character):
    """Of 8 KiB, with the message percent-encoded and the details, which have it twice, in base64."""
    status = status_of(InvalidRequestError(character * 10_000, field="images[0].model_input.shape"), "x" * 128)
    message = len(quote(status.message, safe=""))
    details = len(base64.b64encode(status.SerializeToString()))
    assert message + details < 6000
    assert status.message.endswith(" …")
