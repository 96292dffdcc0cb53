"""Streams that come again: they join the one that is in progress for them, or get what was kept of its events.

A caller who joins late is sent what has not been replaced since: of each explanation the last version, and how far it
has come. The stream goes on at the pace of whoever reads it fastest, for as long as anybody does; who reads slowly gets
fewer events, as alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable, Iterable
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from xai_sidecar.errors import SidecarError
from xai_sidecar.serving.repeats import JOINED, REPEATED, Asked, InProgress, KeptAnswers, Work, has_outlived

E = TypeVar("E")


class Place(NamedTuple):
    """What an event of a stream tells of.

    Attributes:
        about: What it is about. Once that is final, nothing before is worth sending.
        kind: A later event of the same kind about the same replaces it.
        final: Whether nothing follows about it.
    """

    about: Hashable
    kind: str
    final: bool


@dataclass(frozen=True)
class AskedStream(Asked[AsyncGenerator[E, None]]):
    """A stream that may come again.

    Attributes:
        ended: Called when all has been sent, with how that came about: one of `telemetry.REPEATS`, or empty for work of
            its own.
    """

    ended: Callable[[str], object] = lambda how: None


class _Log(Work[None], Generic[E]):
    """A stream in progress, with those of its events that have not been replaced.

    Args:
        place: What an event tells of.
        deadline: Until when the stream may take.
    """

    def __init__(self, place: Callable[[E], Place], deadline: float) -> None:
        super().__init__(deadline)
        self._place = place
        self._events: dict[Place, tuple[int, E]] = {}  # numbered, and in the order of the numbers
        self._count = 0
        self._news, self._wanted = asyncio.Event(), asyncio.Event()

    async def fill(self, events: AsyncGenerator[E, None]) -> None:
        """Takes in the events of a stream, each when somebody has read all before."""
        async with aclosing(events):
            async for event in events:
                self._add(event)
                self._wanted.clear()
                await self._wanted.wait()

    def end(self, _: asyncio.Task[None]) -> None:
        """Tells its readers that nothing more comes."""
        self._news.set()

    def finals(self) -> tuple[E, ...]:
        """The events after which nothing follows about the same."""
        return tuple(event for place, (_, event) in self._events.items() if place.final)

    async def read(self) -> AsyncGenerator[E, None]:
        """Yields what has not been replaced, and then what comes; raises what the stream ends by."""
        seen = 0
        while True:
            found = next((each for each in self._events.values() if each[0] > seen), None)
            if found is not None:
                seen = found[0]
                yield found[1]
            elif self.task.done():
                self.task.result()
                return
            else:
                self._wanted.set()
                await self._news.wait()

    def _add(self, event: E) -> None:
        place = self._place(event)
        for old in list(self._events):
            if old.about == place.about and (place.final or old.kind == place.kind):
                del self._events[old]
        self._count += 1
        self._events[place] = (self._count, event)
        self._news.set()
        self._news.clear()  # those who wait are woken all the same


class StreamRepeats(Generic[E]):
    """Sends streams, each of which runs once. To be used on one event loop.

    Args:
        kept: Where the final events of streams are kept.
        place: What an event tells of.
        size: The bytes of an event.
        on_repeat: Called with one of `telemetry.REPEATS` where a call takes no work of its own.
    """

    def __init__(
        self,
        kept: KeptAnswers[Any],
        place: Callable[[E], Place],
        size: Callable[[E], int],
        on_repeat: Callable[[str], object] = lambda how: None,
    ) -> None:
        self._kept: KeptAnswers[tuple[E, ...]] = kept
        self._place = place
        self._size = size
        self._on_repeat = on_repeat
        self._logs: InProgress[_Log[E]] = InProgress()

    async def events(self, asked: AskedStream[E]) -> AsyncGenerator[E, None]:
        """The events of a stream. Closing it ends the work if nobody else reads it.

        Raises:
            SidecarError: That of the work, or of `AskedStream.hold`.
        """
        sent: set[Hashable] = set()
        while True:
            source, how, until = self._source(asked)
            try:
                async with aclosing(source):
                    async for event in source:
                        place = self._place(event)
                        if place.about not in sent:  # or a stream has sent it that another's hurry ended
                            yield event
                        if place.final:
                            sent.add(place.about)
            except SidecarError as error:
                if not has_outlived(error, asked.deadline, until):
                    raise
            else:
                if how:
                    self._on_repeat(how)
                asked.ended(how)
                return

    def _source(self, asked: AskedStream[E]) -> tuple[AsyncGenerator[E, None], str, float]:
        """Where the events come from, how that came about, and until when it may take."""
        key = (asked.request_id, asked.content)
        if (kept := self._kept.get(key)) is not None:
            return _each(kept), REPEATED, asked.deadline
        log = self._logs.get(key)
        if log is not None:
            return self._read(key, log, asked.hold), JOINED, log.deadline
        log = _Log(self._place, asked.deadline)
        self._logs.begin(key, log, partial(self._run, key, log, asked.work))
        log.task.add_done_callback(log.end)
        return self._read(key, log, nullcontext), "", asked.deadline

    async def _run(self, key: tuple[str, ...], log: _Log[E], work: Callable[[], AsyncGenerator[E, None]]) -> None:
        await log.fill(work())
        self._kept.put(key, log.finals(), sum(map(self._size, log.finals())))

    async def _read(
        self, key: tuple[str, ...], log: _Log[E], hold: Callable[[], AbstractContextManager[None]]
    ) -> AsyncGenerator[E, None]:
        log.waiting += 1
        try:
            with hold():
                async with aclosing(log.read()) as events:
                    async for event in events:
                        yield event
        finally:
            await self._logs.leave(key, log)


async def _each(events: Iterable[E]) -> AsyncGenerator[E, None]:
    for event in events:
        yield event
