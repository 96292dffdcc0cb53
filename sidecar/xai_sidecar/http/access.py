"""Who calls by HTTP, found out before a request's body is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from xai_sidecar.errors import SidecarError
from xai_sidecar.http.roles import ROLES
from xai_sidecar.serving.access import Access
from xai_sidecar.serving.callers import ANYBODY, Role, calling

CERTIFICATE = "xai_sidecar.certificate"
"""The key of a connection's scope that has the names in the caller's certificate."""

_STATUSES = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403}

_log = structlog.get_logger(__name__)


def guarded(routes: Iterable[Route], access: Access) -> Sequence[Route]:
    """Routes that refuse those who may not call, and tell the core who does.

    Args:
        routes: The routes; each path is in the table of roles.
        access: Knows the callers.
    """
    given = list(routes)
    for route in given:
        route.app = Guard(route.app, access, ROLES[route.path], route.path)
    return given


class Guard:
    """An application that is asked only by those who may.

    Args:
        app: The application.
        access: Knows the callers.
        needed: The roles any of which will do.
        path: Where it is, for messages.
    """

    def __init__(self, app: ASGIApp, access: Access, needed: frozenset[Role], path: str) -> None:
        self._app = app
        self._access = access
        self._needed = needed
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if self._needed == ANYBODY:
            await self._app(scope, receive, send)
            return
        try:
            caller = self._access.caller(_authorization(scope), scope.get(CERTIFICATE, ()), _address(scope))
            caller.check(self._needed, self._path)
        except SidecarError as error:
            await _refusal(error, self._path)(scope, receive, send)
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


def _refusal(error: SidecarError, path: str) -> JSONResponse:
    _log.info("refused", path=path, reason=error.reason, message=error.message)
    headers = {"WWW-Authenticate": "Bearer"} if error.code == "UNAUTHENTICATED" else {}
    return JSONResponse({"error": error.message}, _STATUSES[error.code], headers)
