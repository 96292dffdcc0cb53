"""The web server of the console: its pages, what they fetch, and the process that serves them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import uvicorn
from fastapi import FastAPI
from nicegui import app, ui
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp

from xai_console.layout import show
from xai_console.page import Entry
from xai_console.pages import ENTRIES, missing
from xai_console.routes import LARGEST_UPLOAD, STATIC, add_routes, stamp
from xai_console.security import Guard
from xai_console.settings import Settings
from xai_console.viewers import Viewers


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
        config = uvicorn.Config(build(settings), log_level="warning", ws_max_size=LARGEST_UPLOAD)
        uvicorn.Server(config).run(sockets=[listening])


def build(settings: Settings) -> ASGIApp:
    """The console as an ASGI application."""
    viewers = Viewers(settings)
    for entry in ENTRIES:
        _add_page(viewers, entry)
    ui.add_head_html(f'<link rel="stylesheet" href="/static/console.css?{stamp()}">', shared=True)
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=partial(_life, viewers=viewers))
    add_routes(outer, viewers)
    # White is written on the last two, which are too light for that by default.
    app.colors(primary="var(--accent)", positive="#1b7f3f", info="#2b5fb8")
    ui.run_with(
        outer,
        root=_missing(viewers),
        title="xai-sidecar",
        favicon=STATIC / "icon.svg",
        dark=None,
        binding_refresh_interval=None,
        reconnect_timeout=30.0,
        gzip_middleware_factory=None,
        tailwind=False,
        show_welcome_message=False,
    )
    return GZipMiddleware(Guard(outer, settings.public_hosts), compresslevel=1)


def _add_page(viewers: Viewers, entry: Entry) -> None:
    async def page(request: Request) -> None:
        await show(await viewers.of(request), ENTRIES, entry, request)

    ui.page(entry.path, response_timeout=30.0)(page)


def _missing(viewers: Viewers) -> Callable[[Request], Awaitable[None]]:
    async def page(request: Request) -> None:
        ui.context.client.status_code = 404
        await show(await viewers.of(request), ENTRIES, missing.ENTRY, request)

    return page


@contextlib.asynccontextmanager
async def _life(_: FastAPI, viewers: Viewers) -> AsyncIterator[None]:
    viewers.start()
    yield
    await viewers.close()
