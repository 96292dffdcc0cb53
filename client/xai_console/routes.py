"""What browsers fetch beside pages: pictures and values, colours, files of their own, and evidence to save."""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from xai_client import ArgumentError, ImageError, NotFoundError, UnauthenticatedError, XaiError
from xai_console import telling
from xai_console.colour_data import COLOURS_PATH, colours_json
from xai_console.evidence.archive import archive
from xai_console.evidence.html_page import html_page
from xai_console.page import words_of
from xai_console.sign_in import SIGN_IN_PATH, SIGN_OUT_PATH
from xai_console.viewers import Viewers
from xai_console.words import Words, language_of

STATIC: Final = Path(__file__).parent / "static"
_LONGEST_NAME: Final = 40
_LONGEST_TOKEN: Final = 4096
LARGEST_UPLOAD: Final = 64 * 2**20
_FOREVER: Final = {"cache-control": "private, max-age=31536000, immutable"}


def add_routes(app: FastAPI, viewers: Viewers) -> None:
    """Adds them to an application."""
    routes = _Routes(viewers)
    app.add_route("/kept/{name}", routes.kept)
    app.add_route("/upload", routes.upload, methods=["POST"])
    app.add_route("/static/{name}", routes.static)
    app.add_route("/evidence/{kind}", routes.evidence)
    app.add_route(SIGN_IN_PATH, routes.sign_in, methods=["POST"])
    app.add_route(SIGN_OUT_PATH, routes.sign_out, methods=["POST"])
    app.add_route(COLOURS_PATH, routes.colours)


def stamp() -> str:
    """Changes with the files that browsers may keep."""
    content = b"".join(path.read_bytes() for path in sorted(STATIC.iterdir()))
    return hashlib.sha256(content).hexdigest()[:12]


class _Routes:
    def __init__(self, viewers: Viewers) -> None:
        self._viewers = viewers

    async def kept(self, request: Request) -> Response:
        """Something from the viewer's shelf."""
        found = (await self._viewers.of(request)).shelf.get(request.path_params["name"])
        if found is None:
            return PlainTextResponse("it is no longer kept; open the page again", 404)
        return Response(found.data, media_type=found.media_type, headers=_FOREVER)

    async def upload(self, request: Request) -> Response:
        """Takes a picture; answers what it is called on the shelf, and where it can be seen."""
        shelf, say = (await self._viewers.of(request)).shelf, words_of(request)
        data = await _received(request, LARGEST_UPLOAD)
        if data is None:
            return PlainTextResponse(say("drop.too_large", size=LARGEST_UPLOAD >> 20), 413)
        try:
            shown = await asyncio.to_thread(shelf.picture, data)
        except ImageError as error:
            return PlainTextResponse(telling.error(error, say), 400)
        name = shelf.put(data, "application/octet-stream")
        return JSONResponse({"name": name, "url": shown.url, "size": shown.size})

    async def static(self, request: Request) -> Response:
        """A file of the console's own."""
        path = STATIC / request.path_params["name"]
        return FileResponse(path, headers=_FOREVER) if path.is_file() else PlainTextResponse("not found", 404)

    async def colours(self, _: Request) -> Response:
        """The colour scales."""
        return Response(colours_json(), media_type="application/json", headers=_FOREVER)

    async def evidence(self, request: Request) -> Response:
        """A sample as a file of its own."""
        kind, asked = request.path_params["kind"], request.query_params
        console, index = await self._viewers.of(request), asked.get("index", "0")
        if kind not in ("html", "zip") or not index.isdecimal():
            return PlainTextResponse("not found", 404)
        source, say = console.source.name, Words(language_of(asked.get("language", ""), ""))
        try:
            sample = await console.source.sample(asked.get("request", ""), int(index))
            info = console.monitor.info or await console.source.model_info()
        except XaiError as error:
            return PlainTextResponse(telling.error(error, say), 404 if isinstance(error, NotFoundError) else 502)
        page = await asyncio.to_thread(html_page, sample, info, source, say)
        data = page.encode() if kind == "html" else await asyncio.to_thread(archive, sample, info, source, page)
        called = re.sub(r"[^A-Za-z0-9._-]+", "-", sample.summary.request_id)[-_LONGEST_NAME:]
        name = f"sample-{called}-{index}.{kind}"
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        return Response(data, media_type="application/octet-stream", headers=headers)

    async def sign_in(self, request: Request) -> Response:
        """Takes a viewer's token; answers a cookie that stands for it, or why the server does not take it."""
        say = words_of(request)
        token = (await _received(request, _LONGEST_TOKEN) or b"").decode(errors="replace").strip()
        if not token:
            return PlainTextResponse(say("sign_in.no_token"), 400)
        try:
            session = await self._viewers.sign_in(token)
        except UnauthenticatedError:
            return PlainTextResponse(say("sign_in.unknown"), 401)
        except ArgumentError as error:
            return PlainTextResponse(telling.error(error, say), 401)
        except XaiError as error:
            return PlainTextResponse(telling.error(error, say), 502)
        if not session:
            return PlainTextResponse(say("sign_in.open"), 400)
        answer = Response(status_code=204)
        secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))  # the latter by a proxy
        # Without an age it ends with the browser. Links from elsewhere lead to what the viewer may see.
        answer.set_cookie(self._viewers.cookie, session, httponly=True, samesite="lax", secure=secure)
        return answer

    async def sign_out(self, request: Request) -> Response:
        """Forgets a viewer's token."""
        self._viewers.sign_out(request)
        answer = Response(status_code=204)
        answer.delete_cookie(self._viewers.cookie, httponly=True, samesite="lax")
        return answer


async def _received(request: Request, most: int) -> bytes | None:
    """What a browser sends; None where it is more than so many bytes."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > most:
            return None
    return bytes(data)
