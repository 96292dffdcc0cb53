"""Who calls by HTTP, found out before a request's body is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from xai_sidecar.errors import SidecarError
from xai_sidecar.http.answers import plain_refusal
from xai_sidecar.http.requests import Refused, request_id_of
from xai_sidecar.http.roles import METHODS, ROLES
from xai_sidecar.serving.access import Access
from xai_sidecar.serving.callers import ANYBODY, Role, calling

CERTIFICATE = "xai_sidecar.certificate"
"""The key of a connection's scope that has the names in the caller's certificate."""


def guarded(routes: Iterable[Route], access: Access, refused: Refused) -> Sequence[Route]:
    """Routes that refuse those who may not call, and tell the core who does.

    Args:
        routes: The routes; each path is in the table of roles.
        access: Knows the callers.
        refused: Told of what is refused.
    """
    given = list(routes)
    for route in given:
        route.app = Guard(route.app, access, ROLES[route.path], route.path, refused)
    return given


class Guard:
    """An application that is asked only by those who may.

    Args:
        app: The application.
        access: Knows the callers.
        needed: The roles any of which will do.
        path: Where it is, for messages.
        refused: Told of what is refused.
    """

    def __init__(self, app: ASGIApp, access: Access, needed: frozenset[Role], path: str, refused: Refused) -> None:
        self._app = app
        self._access = access
        self._needed = needed
        self._path = path
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if self._needed == ANYBODY:
            await self._app(scope, receive, send)
            return
        try:
            caller = self._access.caller(_authorization(scope), scope.get(CERTIFICATE, ()), _address(scope))
            caller.check(self._needed, self._path)
        except SidecarError as error:
            request_id = request_id_of(Request(scope))
            self._refused(METHODS.get(self._path, self._path), request_id, error)
            await _refusal(error, request_id)(scope, receive, send)
            return
        with calling(caller):
            await self._app(scope, receive, send)


def certificate_names(certificate: Any) -> tuple[str, ...]:
    """The names in a certificate as Python's ssl module shows it: the common name, then the alternative ones.

    Args:
        certificate: What `getpeercert` returned; None or empty without a certificate.
    """
    shown = certificate or {}
    common = [value for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
    return (*common, *(value for _, value in shown.get("subjectAltName", ())))


def _authorization(scope: Scope) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == b"authorization"), None)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _refusal(error: SidecarError, request_id: str) -> Response:
    answer = plain_refusal(error, request_id)
    if error.code == "UNAUTHENTICATED":
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer
