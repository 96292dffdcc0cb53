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

from xai_client import ImageError, NotFoundError, XaiError
from xai_console.colour_data import COLOURS_PATH, colours_json
from xai_console.evidence.archive import archive
from xai_console.evidence.html_page import html_page
from xai_console.page import Console
from xai_console.words import Words, language_of

STATIC: Final = Path(__file__).parent / "static"
_LONGEST_NAME: Final = 40
LARGEST_UPLOAD: Final = 64 * 2**20
_FOREVER: Final = {"cache-control": "private, max-age=31536000, immutable"}


def add_routes(app: FastAPI, console: Console) -> None:
    """Adds them to an application."""
    routes = _Routes(console)
    app.add_route("/kept/{name}", routes.kept)
    app.add_route("/upload", routes.upload, methods=["POST"])
    app.add_route("/static/{name}", routes.static)
    app.add_route("/evidence/{kind}", routes.evidence)
    app.add_route(COLOURS_PATH, routes.colours)


def stamp() -> str:
    """Changes with the files that browsers may keep."""
    content = b"".join(path.read_bytes() for path in sorted(STATIC.iterdir()))
    return hashlib.sha256(content).hexdigest()[:12]


class _Routes:
    def __init__(self, console: Console) -> None:
        self._console = console

    async def kept(self, request: Request) -> Response:
        """Something from the shelf."""
        found = self._console.shelf.get(request.path_params["name"])
        if found is None:
            return PlainTextResponse("it is no longer kept; open the page again", 404)
        return Response(found.data, media_type=found.media_type, headers=_FOREVER)

    async def upload(self, request: Request) -> Response:
        """Takes a picture; answers what it is called on the shelf, and where it can be seen."""
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > LARGEST_UPLOAD:
                return PlainTextResponse(f"the picture is larger than {LARGEST_UPLOAD >> 20} MiB", 413)
        try:
            shown = await asyncio.to_thread(self._console.shelf.picture, bytes(data))
        except ImageError as error:
            return PlainTextResponse(error.message, 400)
        name = self._console.shelf.put(bytes(data), "application/octet-stream")
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
        info, index = self._console.monitor.info, asked.get("index", "0")
        if kind not in ("html", "zip") or not index.isdecimal():
            return PlainTextResponse("not found", 404)
        try:
            sample = await self._console.source.sample(asked.get("request", ""), int(index))
            info = info or await self._console.source.model_info()
        except XaiError as error:
            return PlainTextResponse(error.message, 404 if isinstance(error, NotFoundError) else 502)
        source, say = self._console.source.name, Words(language_of(asked.get("language", ""), ""))
        page = await asyncio.to_thread(html_page, sample, info, source, say)
        data = page.encode() if kind == "html" else await asyncio.to_thread(archive, sample, info, source, page)
        called = re.sub(r"[^A-Za-z0-9._-]+", "-", sample.summary.request_id)[-_LONGEST_NAME:]
        name = f"sample-{called}-{index}.{kind}"
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        return Response(data, media_type="application/octet-stream", headers=headers)
