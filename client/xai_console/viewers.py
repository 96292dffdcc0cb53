"""Viewers with credentials of their own: what each is shown is fetched with them, and kept apart from all else.

A viewer's token is known to this process alone. The browser of one who has signed in has a cookie that stands for it,
until it is closed; a proxy may send the token itself with each request, as a bearer token.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.requests import HTTPConnection

from xai_console.monitor import Monitor
from xai_console.page import Console, Credentials
from xai_console.settings import Settings
from xai_console.shelf import Shelf
from xai_console.source import Source
from xai_console.source.live import LiveSource

_MOST: Final = 200
"""Viewers of either kind that are known at a time, and more only while they look."""
_IDLE_SECONDS: Final[dict[Credentials, float]] = {"session": 12 * 3600.0, "request": 600.0}
"""How long a viewer is known who does not look. One with a token in each request makes itself known again."""


@dataclass
class _Viewer:
    """A viewer with credentials of its own.

    Attributes:
        console: What it is shown from.
        watching: Looks whether that is there.
        seen: When it last asked for something, on the clock of `time.monotonic`.
    """

    console: Console
    watching: asyncio.Task[None]
    seen: float


class Viewers:
    """Knows viewers by what their browsers, or a proxy, send. To be used on one event loop.

    Args:
        settings: How to reach the server; the token in it is for those who have none of their own.
        source: Makes a source of the server, for a token; empty for the console's own.
    """

    def __init__(self, settings: Settings, source: Callable[[Settings, str], Source] = LiveSource) -> None:
        self._settings = settings
        self._source = source
        self._viewers: dict[tuple[Credentials, str], _Viewer] = {}
        self._watching: list[asyncio.Task[None]] = []
        self._closing: set[asyncio.Task[None]] = set()
        own = source(settings, "")
        self.shared = Console(own, Monitor(own), Shelf())
        """What those are shown who have no credentials of their own."""

    @property
    def cookie(self) -> str:
        """The name of the cookie: browsers send it to all consoles of a machine, whatever their port."""
        place = f"{self._settings.name} {self._settings.host} {self._settings.port}"
        return f"xai_session_{hashlib.sha256(place.encode()).hexdigest()[:8]}"

    def start(self) -> None:
        """Begins to look whether the server is there."""
        monitor = self.shared.monitor
        self._watching = [asyncio.create_task(monitor.refresh()), asyncio.create_task(monitor.run())]

    async def of(self, request: HTTPConnection) -> Console:
        """What the viewer is shown from who sent a request."""
        self._forget()
        key = self._key(request)
        if key is None or (key[0] == "request" and await self._is_open()):
            return self.shared
        if key not in self._viewers:
            self._add(key, self._console(key[1], "request"))
        viewer = self._viewers[key]
        viewer.seen = time.monotonic()
        return viewer.console

    async def sign_in(self, token: str) -> str:
        """Takes a viewer's token, once the server has said that it knows it.

        Returns:
            What the cookie is to be; empty where the server asks nobody for credentials.

        Raises:
            XaiError: The server does not know it, or does not answer.
        """
        console = self._console(token, "session")
        try:
            info = await console.source.model_info()
        except BaseException:
            await console.source.close()
            raise
        if info.roles is None:
            await console.source.close()
            return ""
        session = secrets.token_urlsafe(32)
        self._add(("session", session), console)
        return session

    def sign_out(self, request: HTTPConnection) -> None:
        """Forgets the token of a viewer who has signed in, and all that was shown by it."""
        self._drop(("session", request.cookies.get(self.cookie, "")))

    async def close(self) -> None:
        """Ends all calls."""
        for key in list(self._viewers):
            self._drop(key)
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._closing, self.shared.source.close())

    async def _is_open(self) -> bool:
        """Whether the server asks nobody for credentials, so that a token has no business there."""
        monitor = self.shared.monitor
        if monitor.info is None:
            await monitor.refresh()
        return monitor.info is not None and not monitor.guarded

    def _key(self, request: HTTPConnection) -> tuple[Credentials, str] | None:
        """How the viewer is known that sent a request; None for one without credentials of its own.

        A proxy knows better who looks than a cookie that may be of somebody else before.
        """
        scheme, _, token = request.headers.get("authorization", "").strip().partition(" ")
        if scheme.lower() == "bearer" and token.strip() and not self._settings.run:
            return ("request", token.strip())
        session = request.cookies.get(self.cookie, "")
        return ("session", session) if ("session", session) in self._viewers else None

    def _console(self, token: str, credentials: Credentials) -> Console:
        source = self._source(self._settings, token)
        return Console(source, Monitor(source), Shelf(beside=self.shared.shelf), credentials)

    def _add(self, key: tuple[Credentials, str], console: Console) -> None:
        watching = asyncio.create_task(console.monitor.run())
        self._viewers[key] = _Viewer(console, watching, time.monotonic())

    def _drop(self, key: tuple[Credentials, str]) -> None:
        viewer = self._viewers.pop(key, None)
        if viewer is not None:
            viewer.watching.cancel()
            viewer.console.shelf.clear()
            closing = asyncio.create_task(viewer.console.source.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _forget(self) -> None:
        """Drops those who have not looked for long, and of too many those who have not for longest."""
        now = time.monotonic()
        for kind, idle in _IDLE_SECONDS.items():
            known = [(viewer.seen, key) for key, viewer in self._viewers.items() if key[0] == kind]
            gone = sorted(each for each in known if not self._viewers[each[1]].console.monitor.watched)
            for place, (seen, key) in enumerate(gone):
                if now - seen > idle or place < len(known) - _MOST:
                    self._drop(key)
