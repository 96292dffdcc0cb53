"""The routes of KServe's first protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from xai_sidecar.errors import NotFoundError, SidecarError
from xai_sidecar.http.answers import gone, plain_refusal
from xai_sidecar.http.core_calls import CoreCalls, HttpCall
from xai_sidecar.http.kserve_v1 import Asked, core_request, explanations_json, own_path, predictions_json, read_body
from xai_sidecar.http.requests import REQUEST_ID, Bodies, request_id_of
from xai_sidecar.serving.answers import Answer
from xai_sidecar.serving.call_records import CallRecord
from xai_sidecar.serving.core import Core

_MODELS = "/v1/models"
_MODEL = "/v1/models/{model}"


class KServeV1Routes:
    """The protocol's routes.

    Args:
        core: Answers the calls.
        calls: Has it answer on its own event loop.
        bodies: Receives requests.
    """

    def __init__(self, core: Core, calls: CoreCalls, bodies: Bodies) -> None:
        self._core = core
        self._calls = calls
        self._bodies = bodies

    def routes(self) -> list[Route]:
        """What is at which path."""
        return [
            Route(f"{_MODEL}:predict", partial(self._answered, False), methods=["POST"]),
            Route(f"{_MODEL}:explain", partial(self._answered, True), methods=["POST"]),
            Route(_MODELS, self._models),
            Route(_MODEL, self._ready),
        ]

    async def _models(self, _: Request) -> Response:
        state = self._core.state
        return JSONResponse({"models": [] if state is None else [state.model.config.model.name]})

    async def _ready(self, request: Request) -> Response:
        name, state = request.path_params["model"], self._core.state
        try:
            if state is not None:
                state.model.check_name(name)
        except NotFoundError as error:
            return plain_refusal(error)
        ready = state is not None and not self._core.unready
        return JSONResponse({"name": name, "ready": ready}, 200 if ready else 503)

    async def _answered(self, explain: bool, request: Request) -> Response:
        request_id = request_id_of(request)
        try:
            call = await self._bodies.receive(request, "Predict", request_id)
            work = partial(self._answer, call, request.path_params["model"], explain)
            return await self._calls.answer("Predict", call, read_body, work)
        except SidecarError as error:
            return plain_refusal(error, request_id)
        except ClientDisconnect:
            return gone()

    async def _answer(self, call: HttpCall, model: str, explain: bool, asked: Asked, record: CallRecord) -> Response:
        most = self._core.limits.max_images
        request = core_request(asked, call.request_id, model, len(call.body), most, explain=explain)
        record.describe(request)  # type: ignore[arg-type]
        encode = partial(_encoded, explanations_json if explain else predictions_json)
        try:
            body = await self._core.predict(request, encode, call.deadline)
        except SidecarError as error:
            error.field = own_path(error.field)
            raise
        self._calls.check_size(len(body))
        return Response(body, media_type="application/json", headers={REQUEST_ID: call.request_id})


def _encoded(make: Callable[[Answer], dict[str, Any]], answer: Answer) -> bytes:
    return json.dumps(make(answer), ensure_ascii=False, separators=(",", ":")).encode()
