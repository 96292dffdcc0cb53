"""Knows whether the server is there and what it says of itself, and tells pages when that changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeAlias

from xai_client import ModelInfo, UnauthenticatedError, XaiError
from xai_console.source import Source

Watcher: TypeAlias = Callable[[], None]

_HERE_SECONDS = 5.0
_AWAY_SECONDS = 1.0


class Monitor:
    """Asks a source for its description again and again while somebody watches.

    Args:
        source: Whom to ask.

    Attributes:
        info: The newest description; None before the first.
        problem: Why the last question was not answered; None if it was.
    """

    def __init__(self, source: Source) -> None:
        self.info: ModelInfo | None = None
        self.problem: XaiError | None = None
        self._source = source
        self._watchers: set[Watcher] = set()
        self._asked: asyncio.Task[None] | None = None
        self._watched = asyncio.Event()

    @property
    def here(self) -> bool:
        """Whether the source answered the last time."""
        return self.info is not None and self.problem is None

    @property
    def refused(self) -> bool:
        """Whether the server does not know who asks."""
        return isinstance(self.problem, UnauthenticatedError)

    @property
    def guarded(self) -> bool:
        """Whether the server asks for credentials."""
        return self.refused or (self.info is not None and self.info.roles is not None)

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._watchers)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Has a callback called after each answer or failure; returns what ends that."""
        self._watchers.add(watcher)
        self._watched.set()
        return lambda: self._watchers.discard(watcher)

    async def refresh(self) -> None:
        """Asks now; several who want to know at the same time share one question."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(self._ask())
        await asyncio.shield(self._asked)

    async def run(self) -> None:
        """Asks for as long as somebody watches, until cancelled."""
        while True:
            if not self._watchers:
                self._watched.clear()
                await self._watched.wait()
            await self.refresh()
            await asyncio.sleep(_HERE_SECONDS if self.here or self.refused else _AWAY_SECONDS)

    async def _ask(self) -> None:
        try:
            self.info = await self._source.model_info()
            self.problem = None
        except XaiError as error:
            self.problem = error
        for watcher in tuple(self._watchers):
            with contextlib.suppress(RuntimeError):  # its page has just been closed
                watcher()
