"""The web server of the console: its pages, what they fetch, and the process that serves them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from nicegui import app, ui
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from xai_client import ImageError
from xai_client.colours import COLORMAPS, MIDDLE, SIGNED, ColourScale
from xai_console.layout import show
from xai_console.monitor import Monitor
from xai_console.overlay import COLOURS_URL
from xai_console.page import Console, Entry
from xai_console.pages import ENTRIES
from xai_console.security import Guard
from xai_console.settings import Settings
from xai_console.shelf import Shelf
from xai_console.source.live import LiveSource

_STATIC: Final = Path(__file__).parent / "static"
_LARGEST_UPLOAD: Final = 64 * 2**20
_FOREVER: Final = {"cache-control": "private, max-age=31536000, immutable"}


def serve(settings: Settings, report: Callable[[str], None]) -> None:
    """Serves the console until it is ended.

    Args:
        settings: What to show, and where to listen.
        report: Called with the address for browsers as soon as it can be opened.

    Raises:
        OSError: It cannot listen there.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.create_server((settings.host, settings.port), family=family) as listening:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        report(f"http://{host}:{listening.getsockname()[1]}")
        config = uvicorn.Config(build(settings), log_level="warning", ws_max_size=_LARGEST_UPLOAD)
        uvicorn.Server(config).run(sockets=[listening])


def build(settings: Settings) -> ASGIApp:
    """The console as an ASGI application."""
    source = LiveSource(settings)
    console = Console(source=source, monitor=Monitor(source), shelf=Shelf())
    for entry in ENTRIES:
        _add_page(console, entry)
    ui.add_head_html(f'<link rel="stylesheet" href="/static/console.css?{_stamp()}">', shared=True)
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=partial(_life, console=console))
    _add_routes(outer, console)
    app.colors(primary="var(--accent)")
    ui.run_with(
        outer,
        title="xai-sidecar",
        favicon=_STATIC / "icon.svg",
        dark=None,
        binding_refresh_interval=None,
        reconnect_timeout=30.0,
        gzip_middleware_factory=None,
        tailwind=False,
        show_welcome_message=False,
    )
    return GZipMiddleware(Guard(outer, settings.public_hosts), compresslevel=1)


def _add_page(console: Console, entry: Entry) -> None:
    async def page(request: Request) -> None:
        await show(console, ENTRIES, entry, request)

    ui.page(entry.path, response_timeout=30.0)(page)


@contextlib.asynccontextmanager
async def _life(_: FastAPI, console: Console) -> AsyncIterator[None]:
    watching = asyncio.create_task(console.monitor.run())
    yield
    watching.cancel()
    await console.source.close()


def _add_routes(outer: FastAPI, console: Console) -> None:
    async def kept(request: Request) -> Response:
        found = console.shelf.get(request.path_params["name"])
        if found is None:
            return PlainTextResponse("it is no longer kept; open the page again", 404)
        return Response(found.data, media_type=found.media_type, headers=_FOREVER)

    async def upload(request: Request) -> Response:
        data = b""
        async for part in request.stream():
            data += part
            if len(data) > _LARGEST_UPLOAD:
                return PlainTextResponse("the picture is too large", 413)
        try:
            shown = await asyncio.to_thread(console.shelf.picture, data)
        except ImageError as error:
            return PlainTextResponse(error.message, 400)
        name = console.shelf.put(data, "application/octet-stream")
        return JSONResponse({"name": name, "url": shown.url, "size": shown.size})

    async def static(request: Request) -> Response:
        path = _STATIC / request.path_params["name"]
        return FileResponse(path, headers=_FOREVER) if path.is_file() else PlainTextResponse("not found", 404)

    outer.add_route("/kept/{name}", kept)
    outer.add_route("/upload", upload, methods=["POST"])
    outer.add_route("/static/{name}", static)
    outer.add_route(COLOURS_URL, lambda _: JSONResponse(colours(), headers={"cache-control": "no-cache"}))


def colours() -> dict[str, Any]:
    """The SDK's colour scales, as `components/saliency` takes them."""
    scales = {name: ColourScale(0.0, 1.0, name == SIGNED, name) for name in COLORMAPS}
    return {
        "tables": {name: scale.colours().tobytes().hex() for name, scale in scales.items()},
        "strength": {
            "plain": scales[COLORMAPS[0]].strength().tolist(),
            "signed": scales[SIGNED].strength().tolist(),
        },
        "middle": MIDDLE,
    }


def _stamp() -> str:
    """Changes with what browsers may keep."""
    content = b"".join(path.read_bytes() for path in sorted(_STATIC.iterdir()))
    return hashlib.sha256(content).hexdigest()[:12]
