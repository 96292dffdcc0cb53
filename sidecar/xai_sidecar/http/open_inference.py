"""The Open Inference Protocol over HTTP: the routes under /v2."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from xai_sidecar.errors import SidecarError
from xai_sidecar.http.answers import gone, plain_refusal
from xai_sidecar.http.core_calls import CoreCalls, HttpCall
from xai_sidecar.http.open_inference_json import (
    HEADER_LENGTH,
    JsonRequest,
    metadata_json,
    read_infer_request,
    write_infer_response,
)
from xai_sidecar.http.requests import REQUEST_ID, Bodies, request_id_of
from xai_sidecar.open_inference.messages import InferResponse
from xai_sidecar.open_inference.service import OpenInference
from xai_sidecar.serving.call_records import CallRecord

_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version}"


class OpenInferenceRoutes:
    """The protocol's routes.

    Args:
        service: Answers the calls.
        calls: Has it answer on its own event loop.
        bodies: Receives requests.
    """

    def __init__(self, service: OpenInference, calls: CoreCalls, bodies: Bodies) -> None:
        self._service = service
        self._calls = calls
        self._bodies = bodies

    def routes(self) -> list[Route]:
        """What is at which path."""
        of_model = [
            Route(f"{path}{end}", endpoint, methods=[method])
            for path in (_MODEL, _VERSION)
            for end, endpoint, method in (
                ("", self._model_metadata, "GET"),
                ("/ready", self._model_ready, "GET"),
                ("/infer", self._infer, "POST"),
            )
        ]
        return [
            Route("/v2", self._server_metadata),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            *of_model,
        ]

    async def _live(self, _: Request) -> Response:
        live = self._service.is_alive()
        return JSONResponse({"live": live}, 200 if live else 503)

    async def _ready(self, _: Request) -> Response:
        ready = self._service.is_ready()
        return JSONResponse({"ready": ready, "live": self._service.is_alive()}, 200 if ready else 503)

    async def _server_metadata(self, _: Request) -> Response:
        server = self._service.server_metadata()
        return JSONResponse({"name": server.name, "version": server.version, "extensions": server.extensions})

    async def _model_ready(self, request: Request) -> Response:
        name, version = _named(request)
        return await _answered(self._is_model_ready(name, version))

    async def _is_model_ready(self, name: str, version: str) -> Response:
        ready = await self._calls.ask(lambda: self._service.model_ready(name, version))
        return JSONResponse({"name": name, "ready": ready}, 200 if ready else 503)

    async def _model_metadata(self, request: Request) -> Response:
        name, version = _named(request)

        async def described() -> Response:
            model = await self._calls.ask(lambda: self._service.model_metadata(name, version))
            return JSONResponse(metadata_json(model))

        return await _answered(described())

    async def _infer(self, request: Request) -> Response:
        request_id = request_id_of(request)
        return await _answered(self._inferred(request, request_id), request_id)

    async def _inferred(self, request: Request, request_id: str) -> Response:
        call = await self._bodies.receive(request, "ModelInfer", request_id)
        header_length = request.headers.get(HEADER_LENGTH)

        def read(body: bytes) -> JsonRequest:
            return read_infer_request(body, header_length, *_named(request))

        async def work(asked: JsonRequest, record: CallRecord) -> Response:
            return await self._work(asked, record, call)

        return await self._calls.answer("ModelInfer", call, read, work)

    async def _work(self, asked: JsonRequest, record: CallRecord, call: HttpCall) -> Response:
        def encode(response: InferResponse) -> Response:
            body, header_length = write_infer_response(response, asked.binary)
            headers = {REQUEST_ID: str(response.parameters["request_id"])}
            if header_length is None:
                return Response(body, media_type="application/json", headers=headers)
            headers[HEADER_LENGTH] = str(header_length)
            return Response(body, media_type="application/octet-stream", headers=headers)

        answer = await self._service.infer(
            asked.request, encode, request_id=call.request_id, deadline=call.deadline, describe=record.describe
        )
        self._calls.check_size(len(answer.body))
        return answer


def _named(request: Request) -> tuple[str, str]:
    """The model and the version that a path names."""
    return request.path_params["model"], request.path_params.get("version", "")


async def _answered(work: Awaitable[Response], request_id: str = "") -> Response:
    """The answer, also where it is an error."""
    try:
        return await work
    except SidecarError as error:
        return plain_refusal(error, request_id)
    except ClientDisconnect:
        return gone()
