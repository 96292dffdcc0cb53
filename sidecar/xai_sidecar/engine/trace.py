"""Where the time of a call goes: what it did, from one hand-over to the next.

A call that is not traced has no `Trace`, and costs a look at a context variable for each hand-over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

STEPS = (
    "receive",  # from the call's headers to its whole message
    "parse",
    "admit",  # checked, and taken on
    "decode_wait",  # until a worker thread begins
    "decode",
    "prepare",  # resized and normalised
    "decode_back",  # until the event loop goes on
    "hand_over",  # until the device thread has queued it
    "device_wait",  # until its batch begins
    "pass",
    "way_back",  # until the event loop goes on
    "explain",
    "answer",  # made, encoded and serialised
    "send",  # until the transport has it, with its status
)
"""The steps of a prediction, in their order."""


@dataclass(frozen=True)
class Step:
    """A step of a call; times are on the clock of `time.monotonic`."""

    name: str
    started: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.started


class Trace:
    """The steps of a call so far. Threads may take turns at it, as a call's threads do.

    Args:
        name: What is traced.
        started: When it began, on the clock of `time.monotonic`; None for now.
        steps: Where steps are added.

    Attributes:
        name: As given.
        started: When it began.
        last: When its last step ended.
        steps: The steps, in the order in which they ended.
    """

    __slots__ = ("last", "name", "started", "steps")

    def __init__(self, name: str = "", started: float | None = None, steps: list[Step] | None = None) -> None:
        self.name = name
        self.started = self.last = time.monotonic() if started is None else started
        self.steps: list[Step] = [] if steps is None else steps

    def mark(self, name: str, now: float | None = None) -> None:
        """Ends a step that began when the last one ended.

        Args:
            name: One of `STEPS`.
            now: When it ended; None for now.
        """
        now = time.monotonic() if now is None else now
        self.steps.append(Step(name, self.last, now))
        self.last = now

    def branch(self) -> Trace:
        """A trace of one of several things that are done at once, as a request's pictures are; see `join`."""
        return Trace(self.name, self.last, self.steps)

    def join(self, branch: Trace) -> None:
        """The next step begins when those of the branch have ended."""
        self.last = max(self.last, branch.last)


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current_trace() -> Trace | None:
    """The trace of the call that is worked on here; None if it is not traced."""
    return _current.get()


def branched() -> Trace | None:
    """A branch of the present trace; None if there is none."""
    trace = _current.get()
    return None if trace is None else trace.branch()


def joined(branch: Trace | None, step: str) -> None:
    """Ends a branch with a step, for a call that goes on when it has."""
    trace = _current.get()
    if branch is not None and trace is not None:
        branch.mark(step)
        trace.join(branch)


def mark(step: str) -> None:
    """Ends a step of the present trace, if there is one."""
    trace = _current.get()
    if trace is not None:
        trace.mark(step)


@contextmanager
def traced(trace: Trace | None) -> Iterator[None]:
    """Makes a trace the present one."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)
