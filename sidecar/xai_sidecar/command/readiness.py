"""Whether calls should be sent here: what probes, gRPC's health checks and the series say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from xai_sidecar.command.heartbeat import Heartbeat
from xai_sidecar.engine.engine import Engine
from xai_sidecar.serving.core import Core

_LOOK_SECONDS = 0.25

_log = structlog.get_logger(__name__)


class Readiness:
    """Says why the server is not ready, from the start on.

    Args:
        core: Knows whether the model is loaded, and can answer.
        engine: Runs it.
        heartbeat: Knows whether the event loop runs.
        loading: What loads the model; says in `waiting_for`, if it has that, what it waits for.
    """

    def __init__(self, core: Core, engine: Engine, heartbeat: Heartbeat, loading: Any) -> None:
        self._core = core
        self._engine = engine
        self._heartbeat = heartbeat
        self._loading = loading

    def why_not(self) -> str:
        """Why no calls should be sent here; empty if they should. Any thread may ask."""
        if self._core.state is None:
            return getattr(self._loading, "waiting_for", "") or self._core.unready
        if not self._engine.alive:
            return "the device is lost"
        return self._core.unready if self._heartbeat.alive else "the server does not come to its work"

    async def follow(self, tell: Callable[[bool], Awaitable[None]]) -> None:
        """Tells of changes until it is cancelled; at the beginning the server is ready."""
        before = ""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            why = self.why_not()
            if bool(why) != bool(before):
                await tell(not why)
                if why:
                    _log.warning("unready", why=why)
                else:
                    _log.info("ready_again")
            before = why
