"""Answers that routes have in common: errors, and streams of events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from xai_sidecar.errors import SidecarError
from xai_sidecar.http.contract_json import error_json
from xai_sidecar.http.requests import REQUEST_ID, error_headers, http_status

_JSON = "application/json"
_EVENTS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    # Gateways would collect events otherwise.
    "X-Accel-Buffering": "no",
}


def json_answer(body: bytes, headers: dict[str, str]) -> Response:
    """An answer in JSON."""
    return Response(body, media_type=_JSON, headers=headers)


def refusal(error: SidecarError, request_id: str) -> Response:
    """An error as a google.rpc.Status in JSON."""
    return Response(error_json(error, request_id), http_status(error), error_headers(error, request_id), _JSON)


def plain_refusal(error: SidecarError, request_id: str = "") -> Response:
    """An error as KServe's protocols have it: its text, after the field at fault."""
    text = f"{error.field}: {error.message}" if error.field else error.message
    return JSONResponse({"error": text}, http_status(error), error_headers(error, request_id))


def gone() -> Response:
    """To a caller who has left, and does not read it."""
    return Response(status_code=499)


def event_text(name: str, data: bytes) -> bytes:
    """A server-sent event, as WHATWG HTML has them; `data` is JSON without line breaks."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


class EventStream(Response):
    """Server-sent events, of which the last may be an `error`, with its google.rpc.Status.

    Args:
        first: The first event.
        others: Those after it; to be closed where the caller leaves.
        request_id: The id of the request.
    """

    def __init__(self, first: bytes, others: AsyncGenerator[bytes, None], request_id: str) -> None:
        super().__init__(headers={**_EVENTS, REQUEST_ID: request_id})
        del self.headers["content-length"]
        self._first = first
        self._others = others
        self._request_id = request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._others):
            try:
                await send({"type": "http.response.body", "body": self._first, "more_body": True})
                async for event in self._others:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            except SidecarError as error:
                text = event_text("error", error_json(error, self._request_id))
                await send({"type": "http.response.body", "body": text, "more_body": True})
            except ClientDisconnect:
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
