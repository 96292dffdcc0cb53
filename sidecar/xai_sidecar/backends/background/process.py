"""Runs evaluation in a process of its own, which gets CPU time only where nobody else wants it (SCHED_IDLE).

A process and not threads: a thread of the lowest priority that holds Python's lock, and is then left without CPU time,
would stop all others. See man 7 sched.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection

import structlog

from xai_sidecar.backends.background.messages import Answered, Warmed, asked, receive, send
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.passes import same_passes
from xai_sidecar.cpus import has_quota, usable_cpus
from xai_sidecar.engine.background import Columns
from xai_sidecar.engine.work import Array, Kind

_MOST_STARTS = 4
_AGAIN_SECONDS = 60.0
"""How long after it has ended, unasked, another one is started; each time as much longer."""

_END_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class BackgroundError(Exception):
    """The process has ended, or has failed to run a batch."""


def why_not(source: GraphSource) -> str | None:
    """Why evaluation of a model cannot have a process of its own; None if it can."""
    if not source.device.startswith("cpu"):
        return f"the device is {source.device}, on which priorities do not hold"
    if not hasattr(os, "SCHED_IDLE"):
        return "this operating system has no SCHED_IDLE"
    if has_quota():
        return "a quota on CPU time stops all threads alike once it is used up"
    if source.threads is not None and source.threads < usable_cpus():
        return "model.threads leaves CPUs to others"
    return None


@dataclass(eq=False)
class _Running:
    """A process that was started, what it is ready for, and its connections that no batch uses."""

    process: subprocess.Popen[bytes]
    control: Connection
    free: queue.SimpleQueue[Connection] = field(default_factory=queue.SimpleQueue)
    costs: dict[Kind, dict[int, float]] = field(default_factory=dict)
    asked: set[Kind] = field(default_factory=set)
    loaded: bool = False
    used: float = 0.0  # CPU seconds that it says it has used


class BackgroundProcess:
    """A second process with the model, as a `Background`. It is started once something is asked of it.

    Args:
        source: What the backend has loaded.
        version: The backend's version; the process has to find the same one.
        policy: Of its threads, by the operating system's scheduler; SCHED_IDLE by default.
    """

    def __init__(self, source: GraphSource, version: str, policy: int | None = None) -> None:
        self._policy = os.SCHED_IDLE if policy is None else policy
        self._cpus = usable_cpus()
        self.concurrency = self._cpus
        self._source = replace(source, calls=self.concurrency)
        self._version = version
        self._lock = threading.Lock()  # guards what follows
        self._running: _Running | None = None
        self._starts = 0
        self._not_before = float("-inf")
        self._used = 0.0  # CPU seconds of processes that have ended
        self._closed = False

    @property
    def used_seconds(self) -> float:
        """What its batches have used; see `Background.used_seconds`. What getting ready takes counts, too."""
        running = self._running
        return (self._used + (0.0 if running is None else running.used)) / self._cpus

    def takes(self, kind: Kind) -> bool:
        """Whether it is ready for a kind; see `Background.takes`."""
        running = self._running
        if running is None:
            self._start()
            return False
        same = same_passes(kind)
        if running.loaded and same not in running.asked:
            running.asked.add(same)
            with contextlib.suppress(OSError):  # it has ended, which its thread notices
                send(running.control, same)
        return same in running.costs

    def costs(self, kind: Kind) -> Mapping[int, float]:
        """Batch sizes and seconds; see `Background.costs`."""
        running = self._running
        return {} if running is None else running.costs.get(same_passes(kind), {})

    def run(self, kind: Kind, size: int, columns: Columns) -> tuple[Array, ...]:
        """Runs a batch; see `Background.run`.

        Raises:
            BackgroundError: It has ended, or has failed.
        """
        running = self._running
        if running is None:
            raise BackgroundError("the process of evaluation has ended")
        connection = running.free.get()
        try:
            send(connection, asked(kind, size, columns))
            answer: Answered = receive(connection)
        except (EOFError, OSError) as error:
            running.free.put(connection)  # for whoever waits for one, to find out as well
            raise BackgroundError("the process of evaluation has ended") from error
        running.free.put(connection)
        running.used = max(running.used, answer.cpu_seconds)
        if answer.error or any(len(rows) != size for rows in answer.rows):
            raise BackgroundError(answer.error or "another number of rows came back")
        return answer.rows

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._closed = True
            running = self._running
        if running is not None:
            running.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(_END_SECONDS)

    def _start(self) -> None:
        with self._lock:
            if self._closed or self._running or self._starts >= _MOST_STARTS or time.monotonic() < self._not_before:
                return
            self._starts += 1
            self._not_before = float("inf")  # until this one has ended
        threading.Thread(target=self._follow, name="background-process", daemon=True).start()

    def _follow(self) -> None:
        """Starts the process, and listens until it ends."""
        started = time.monotonic()
        try:
            running = self._started()
        except OSError as error:
            _log.warning("background_not_started", error=str(error))
            return
        with contextlib.suppress(EOFError, OSError):
            send(running.control, self._source)
            running.loaded = receive(running.control) == self._version
            while running.loaded:
                self._warmed(running, receive(running.control), started)
            _log.warning("background_not_started", error="the model's file has changed since the server started")
            self._starts = _MOST_STARTS
            running.process.kill()
        self._ended(running)

    @staticmethod
    def _warmed(running: _Running, warmed: Warmed, started: float) -> None:
        if warmed.refused:
            _log.info("background_refused", kind=str(warmed.kind), reason=warmed.refused)
            return
        if not running.costs:
            _log.info("background_ready", pid=running.process.pid, seconds=round(time.monotonic() - started, 1))
        running.costs[warmed.kind] = warmed.costs

    def _started(self) -> _Running:
        pairs = [socket.socketpair() for _ in range(1 + self.concurrency)]
        theirs = [other.fileno() for _, other in pairs]
        with self._lock:
            if self._closed:
                raise OSError("it was closed")
            process = subprocess.Popen(  # noqa: S603 - this very package
                [sys.executable, "-m", f"{__package__}.worker", *map(str, [self._policy, *theirs])],
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                stdout=sys.__stderr__ or subprocess.DEVNULL,  # standard output is the server's log
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            control, *batches = (Connection(own.detach()) for own, _ in pairs)
            for _, other in pairs:
                other.close()
            self._running = running = _Running(process, control)
        for connection in batches:
            running.free.put(connection)
        return running

    def _ended(self, running: _Running) -> None:
        status = running.process.wait()
        with self._lock:
            self._running = None
            self._used += running.used
            self._not_before = time.monotonic() + self._starts * _AGAIN_SECONDS
            closed = self._closed
        running.control.close()
        if not closed:
            _log.warning("background_ended", status=status, starts=self._starts)
