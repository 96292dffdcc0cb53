"""The routes of all protocols over HTTP, put together."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

_log = structlog.get_logger(__name__)


def application(routes: Sequence[Route], middleware: Sequence[Middleware] = ()) -> Starlette:
    """An application of some routes.

    Args:
        routes: What is at which path.
        middleware: Around all of it, the outermost first; also around what is not found.
    """
    paths = [route.path for route in routes]

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        headers = dict(getattr(error, "headers", None) or {})
        there_are = f"{', '.join(paths[:-1])} and {paths[-1]}"
        if status == 404:
            text = f"There is nothing at {request.url.path}. There are {there_are}."
        elif status == 405:
            headers["Allow"] = allowed = ", ".join(sorted(headers["Allow"].split(", ")))
            text = f"{request.url.path} takes no {request.method}, but {allowed}."
        else:
            text = getattr(error, "detail", "")
        return PlainTextResponse(f"{text}\n", status, headers)

    async def failed(request: Request, error: Exception) -> Response:
        _log.error("request_failed", path=request.url.path, exc_info=error)
        return PlainTextResponse(f"The server failed with {type(error).__name__}; its log has more.\n", 500)

    app = Starlette(
        routes=routes, middleware=middleware, exception_handlers={HTTPException: refused, Exception: failed}
    )
    app.router.redirect_slashes = False
    return app
