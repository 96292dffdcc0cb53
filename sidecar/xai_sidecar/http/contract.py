"""The contract in JSON over HTTP: POST /v1/predict, and /v1/predict:stream as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from xai_proto import explanation_pb2 as pb
from xai_sidecar import __version__
from xai_sidecar.errors import SidecarError
from xai_sidecar.http.answers import EventStream, event_text, gone, json_answer, refusal
from xai_sidecar.http.contract_json import message_json, read_message
from xai_sidecar.http.core_calls import CoreCalls, HttpCall
from xai_sidecar.http.openapi import openapi
from xai_sidecar.http.requests import REQUEST_ID, Bodies, request_id_of
from xai_sidecar.rpc.answerer import Answerer, ReceivedCall
from xai_sidecar.serving.call_records import CallRecord
from xai_sidecar.serving.request_ids import valid_request_id

PREDICT = "/v1/predict"
STREAM = "/v1/predict:stream"

REPEAT = "x-repeat"
"""The header that says how a call was answered without work of its own."""


class ContractRoutes:
    """The contract's routes.

    Args:
        answerer: Answers predictions.
        calls: Has it answer on its own event loop.
        bodies: Receives requests.
    """

    def __init__(self, answerer: Answerer, calls: CoreCalls, bodies: Bodies) -> None:
        self._answerer = answerer
        self._calls = calls
        self._bodies = bodies

    def routes(self) -> list[Route]:
        """What is at which path."""
        return [
            Route(PREDICT, self._predict, methods=["POST"]),
            Route(STREAM, self._stream, methods=["POST"]),
            Route("/openapi.json", self._describe),
        ]

    async def _describe(self, _: Request) -> Response:
        return JSONResponse(openapi(__version__))

    async def _predict(self, request: Request) -> Response:
        request_id = request_id_of(request)
        try:
            call = await self._bodies.receive(request, "Predict", request_id)
            read = partial(read_message, kind=pb.PredictRequest)
            return await self._calls.answer("Predict", call, read, partial(self._answer, call))
        except SidecarError as error:
            return refusal(error, request_id)
        except ClientDisconnect:
            return gone()

    async def _answer(self, call: HttpCall, asked: pb.PredictRequest, record: CallRecord) -> Response:
        answer, how = await self._answerer.predict(asked, _named(asked, call, record))
        body = message_json(answer)
        self._calls.check_size(len(body))
        return json_answer(body, {REQUEST_ID: answer.request_id, **({REPEAT: how} if how else {})})

    async def _stream(self, request: Request) -> Response:
        request_id = request_id_of(request)
        try:
            call = await self._bodies.receive(request, "PredictStream", request_id)
            read = partial(read_message, kind=pb.PredictStreamRequest)
            events = self._calls.events("PredictStream", call, read, partial(self._events, call))
            return EventStream(await anext(events), events, request_id)
        except SidecarError as error:
            return refusal(error, request_id)
        except ClientDisconnect:
            return gone()

    async def _events(
        self, call: HttpCall, asked: pb.PredictStreamRequest, record: CallRecord
    ) -> AsyncGenerator[bytes, None]:
        received = _named(asked.request, call, record)
        async with aclosing(self._answerer.stream(asked, received, lambda how: None)) as events:
            async for event in events:
                data = message_json(event)
                self._calls.check_size(len(data))
                yield event_text(str(event.WhichOneof("event")), data)


def _named(asked: pb.PredictRequest, call: HttpCall, record: CallRecord) -> ReceivedCall:
    """What is known of a call, which goes by its request's own id where that has one."""
    own = valid_request_id(asked.request_id)
    if own:
        record.name(asked.request_id)
    record.describe(asked)
    return ReceivedCall(record.request_id, len(call.body), call.deadline, own or call.named)
