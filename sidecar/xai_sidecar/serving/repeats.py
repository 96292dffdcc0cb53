"""Calls that come again: they join the work that is in progress for them, or get the answer that was kept.

    caller ─ id, content ─► kept under that id, or under that content? ─► that answer
                            in progress under that id and content?     ─► its answer, once it is there
                            else                                       ─► work of its own, which others may join

Work goes on as long as anybody waits for it. An error goes to those who wait for it, and is kept for nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import SidecarError
from xai_sidecar.telemetry import REPEATS

T = TypeVar("T")
R = TypeVar("R")

JOINED, REPEATED, CACHED = REPEATS

_REPEATED_BYTES = 64 * 2**20
"""Most bytes of answers that are kept by request id."""

_ENTRY_BYTES = 512
"""Memory of a kept answer besides the answer, roughly."""

_SAME_SECONDS = 0.05
"""Deadlines that differ by less count as the same."""


class _Kept(NamedTuple, Generic[T]):
    answer: T
    byte_count: int
    until: float


class KeptAnswers(Generic[T]):
    """Answers by a key, of which the least recently used go first.

    Args:
        most_bytes: Most bytes of all together; 0 keeps none.
        seconds: How long each is kept.
        clock: The time in seconds.

    Attributes:
        byte_count: Bytes of all that are kept.
    """

    def __init__(
        self, most_bytes: int, seconds: float = float("inf"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.byte_count = 0
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._clock = clock
        self._answers: OrderedDict[tuple[str, ...], _Kept[T]] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> T | None:
        """The answer that is kept under a key; None if there is none."""
        kept = self._answers.get(key)
        if kept is None:
            return None
        if self._clock() >= kept.until:
            self._drop(key)
            return None
        self._answers.move_to_end(key)
        return kept.answer

    def put(self, key: tuple[str, ...], answer: T, byte_count: int) -> None:
        """Keeps an answer, unless it alone is too large.

        Args:
            key: Under which.
            answer: The answer.
            byte_count: Its size.
        """
        byte_count += _ENTRY_BYTES
        self._drop(key)
        if self._seconds <= 0 or byte_count > self._most_bytes:
            return
        self._answers[key] = _Kept(answer, byte_count, self._clock() + self._seconds)
        self.byte_count += byte_count
        while self.byte_count > self._most_bytes:
            self._drop(next(iter(self._answers)))

    def _drop(self, key: tuple[str, ...]) -> None:
        kept = self._answers.pop(key, None)
        if kept is not None:
            self.byte_count -= kept.byte_count


class Work(Generic[T]):
    """Work that several callers may wait for.

    Args:
        deadline: Until when it may take.

    Attributes:
        deadline: As given.
        task: What does it, once it has begun.
        waiting: How many wait for it.
    """

    task: asyncio.Task[T]

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.waiting = 0


W = TypeVar("W", bound=Work[Any])


class InProgress(Generic[W]):
    """Work in progress by key, each given up when nobody waits for it any more. To be used on one event loop."""

    def __init__(self) -> None:
        self._working: dict[tuple[str, ...], W] = {}

    def __len__(self) -> int:
        """How much is in progress."""
        return len(self._working)

    def get(self, key: tuple[str, ...]) -> W | None:
        """What others may join; None if there is none."""
        return self._working.get(key)

    def begin(self, key: tuple[str, ...], work: W, run: Callable[[], Awaitable[Any]]) -> None:
        """Begins work, which others may join until it has ended."""
        work.task = asyncio.create_task(self._run(key, work, run))
        work.task.add_done_callback(_take_note)
        self._working[key] = work

    async def leave(self, key: tuple[str, ...], work: W) -> None:
        """Ends a caller's wait, who has counted in `Work.waiting`; and the work, if it was the last one to wait."""
        work.waiting -= 1
        if not work.waiting and not work.task.done():
            self._forget(key, work)  # nobody joins what is being given up
            work.task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait({work.task})

    async def _run(self, key: tuple[str, ...], work: W, run: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await run()
        finally:
            self._forget(key, work)

    def _forget(self, key: tuple[str, ...], work: W) -> None:
        if self._working.get(key) is work:  # else given up, and begun anew
            del self._working[key]


@dataclass(frozen=True)
class Asked(Generic[R]):
    """A call that may come again.

    Attributes:
        request_id: Its id.
        content: Digest of everything else that its answer depends on.
        deadline: When its caller stops waiting, on the clock of `time.monotonic`.
        work: Begins to answer it.
        hold: Admits what its caller holds in memory while it waits for the work of another.
    """

    request_id: str
    content: str
    deadline: float
    work: Callable[[], R]
    hold: Callable[[], AbstractContextManager[None]]


class Repeats(Generic[T]):
    """Answers calls, each once. To be used on one event loop.

    Args:
        limits: How much is kept, and for how long.
        size: The bytes of an answer.
        lasting: Whether an answer would be the same at any time, so that it may be kept by its content.
        on_repeat: Called with one of `telemetry.REPEATS` where a call takes no work of its own.
        kept: Where answers are kept by id, see `kept_by_id`; None for a place of its own.
    """

    def __init__(
        self,
        limits: ServerConfig,
        size: Callable[[T], int],
        lasting: Callable[[T], bool],
        on_repeat: Callable[[str], object] = lambda how: None,
        kept: KeptAnswers[Any] | None = None,
    ) -> None:
        self._size = size
        self._lasting = lasting
        self._working: InProgress[Work[T]] = InProgress()
        self._repeated: KeptAnswers[T] = kept or kept_by_id(limits)
        self._cache: KeptAnswers[T] = KeptAnswers(limits.response_cache_bytes)
        self._on_repeat = on_repeat

    async def answer(self, asked: Asked[Awaitable[T]]) -> tuple[T, str]:
        """The answer to a call, and how it came about: one of `telemetry.REPEATS`, or empty for work of its own.

        Cancelling it ends the work if nobody else waits for it.

        Raises:
            SidecarError: That of the work, or of `Asked.hold`.
        """
        answer, how = await self._answered(asked)
        if how:
            self._on_repeat(how)
        return answer, how

    async def _answered(self, asked: Asked[Awaitable[T]]) -> tuple[T, str]:
        key = (asked.request_id, asked.content)
        while True:
            if (kept := self._repeated.get(key)) is not None:
                return kept, REPEATED
            if (kept := self._cache.get((asked.content,))) is not None:
                return kept, CACHED
            work = self._working.get(key)
            if work is None:
                work = Work(asked.deadline)
                self._working.begin(key, work, partial(self._run, key, asked))
                return await self._wait(key, work), ""
            try:
                with asked.hold():
                    return await self._wait(key, work), JOINED
            except SidecarError as error:
                if not has_outlived(error, asked.deadline, work.deadline):
                    raise

    async def _run(self, key: tuple[str, ...], asked: Asked[Awaitable[T]]) -> T:
        answer = await asked.work()
        self._repeated.put(key, answer, self._size(answer))
        if self._lasting(answer):
            self._cache.put((asked.content,), answer, self._size(answer))
        return answer

    async def _wait(self, key: tuple[str, ...], work: Work[T]) -> T:
        work.waiting += 1
        try:
            await asyncio.wait({work.task})
        finally:
            await self._working.leave(key, work)
        return work.task.result()


def kept_by_id(limits: ServerConfig) -> KeptAnswers[Any]:
    """Where answers are kept by request id and content, for as long as the config says."""
    return KeptAnswers(_REPEATED_BYTES, limits.repeat_seconds)


def has_outlived(error: SidecarError, deadline: float, until: float) -> bool:
    """Whether a caller may begin anew, since another was in more of a hurry.

    Args:
        error: What the work ended by.
        deadline: The caller's.
        until: That of the work.
    """
    return error.code == "DEADLINE_EXCEEDED" and deadline > until + _SAME_SECONDS


def _take_note(task: asyncio.Task[Any]) -> None:
    """Takes note of an error that nobody waits for any more, which asyncio would log."""
    if not task.cancelled():
        task.exception()
