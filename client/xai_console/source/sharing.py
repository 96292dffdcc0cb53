"""One stream from the server for all viewers who watch the same: what each stream of its own cost, many cost once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing
from typing import Final, TypeAlias

from xai_client import SampleEvents, XaiError

Open: TypeAlias = Callable[[], AsyncGenerator[SampleEvents, None]]

_MOST_WAITING: Final = 256
"""Events that wait for a viewer; one for whom there are more has missed them, and lists anew."""

_NOTHING: Final = SampleEvents(())


class Sharing:
    """Streams that are open, by what they are of. To be used on one event loop."""

    def __init__(self) -> None:
        self._streams: dict[Hashable, _Stream] = {}

    async def watch(self, key: Hashable, open_stream: Open) -> AsyncGenerator[SampleEvents, None]:
        """Yields what happens, from a stream that is open already, or from a new one.

        Events that have come since the last one was taken are put together.

        Args:
            key: What the stream is of.
            open_stream: Opens it, where there is none yet.

        Raises:
            XaiError: The stream has failed; it is closed then, and the next who watches opens another.
        """
        stream = self._streams.get(key)
        if stream is None or stream.ended:
            stream = self._streams[key] = _Stream(open_stream)
        viewer = stream.join()
        try:
            while (found := await viewer.next()) is not None:
                yield found
        finally:
            if stream.leave(viewer) and self._streams.get(key) is stream:
                del self._streams[key]


class _Stream:
    """A stream, and those who watch it."""

    def __init__(self, open_stream: Open) -> None:
        self._viewers: set[_Viewer] = set()
        self._task = asyncio.create_task(self._run(open_stream))

    @property
    def ended(self) -> bool:
        return self._task.done()

    def join(self) -> _Viewer:
        viewer = _Viewer()
        self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: _Viewer) -> bool:
        """Closes the stream when the last has left; returns whether that was the last."""
        self._viewers.discard(viewer)
        if not self._viewers:
            self._task.cancel()
        return not self._viewers

    async def _run(self, open_stream: Open) -> None:
        failed: XaiError | None = None
        try:
            async with aclosing(open_stream()) as events:
                async for each in events:
                    for viewer in self._viewers:
                        viewer.put(each)
        except XaiError as error:
            failed = error
        finally:
            for viewer in self._viewers:
                viewer.end(failed)


class _Viewer:
    """What waits for one viewer."""

    def __init__(self) -> None:
        self._waiting = _NOTHING
        self._has_ended = False
        self._error: XaiError | None = None
        self._happened = asyncio.Event()

    def put(self, found: SampleEvents) -> None:
        before = self._waiting
        events = (*before.events, *found.events)
        missed = before.missed_count + found.missed_count
        if len(events) > _MOST_WAITING:
            events, missed = (), missed + len(events)
        self._waiting = SampleEvents(events, missed, before.reconnected or found.reconnected)
        self._happened.set()

    def end(self, error: XaiError | None) -> None:
        self._has_ended, self._error = True, error
        self._happened.set()

    async def next(self) -> SampleEvents | None:
        """What has come; once all of it was taken, the error of the stream, or None where it has just ended."""
        await self._happened.wait()
        found, self._waiting = self._waiting, _NOTHING
        if found is not _NOTHING or not self._has_ended:
            if not self._has_ended:
                self._happened.clear()
            return found
        if self._error is not None:
            raise self._error
        return None
