"""Writing log lines without waiting for their reader."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from typing import TextIO

_MOST_BYTES = 4 * 2**20
"""Most bytes that wait to be written."""

_COLLECTING_SECONDS = 0.01
"""Pause in which lines of a burst are collected for one write: a write for each would cost more than the lines."""

_AT_ONCE = 3
"""Writes without such a pause after a quiet moment: the lines of a call, which its caller may look for at once."""

_ENDING_SECONDS = 1.0


class LineWriter:
    """Writes lines to a stream without blocking the threads that log: a pipe may have no reader.

    After a quiet moment a line is written by the thread that logs it, if the system can without blocking, so that it is
    out before anything that the thread does next. All others, of a burst or a full pipe, are left to a thread.

    Lines for which there is no room are dropped and counted; a log line reports them once there is room again.

    Args:
        stream: Where the lines go.
        most_bytes: Most bytes that wait to be written, roughly; one line is always taken.

    Attributes:
        dropped: Number of lines dropped so far.
    """

    def __init__(self, stream: TextIO, most_bytes: int = _MOST_BYTES) -> None:
        self._stream = stream
        self._most_bytes = most_bytes
        self._changed = threading.Condition()
        self._lines: list[bytes] = []
        self._size = 0
        self._writing = False
        self._reported_dropped = 0
        self._spacing = Spacing(_COLLECTING_SECONDS, _AT_ONCE)
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Writes a line, given without its line end, now or later; any thread may call."""
        data = _encoded(line)
        with self._changed:
            if self._lines and self._size + len(data) > self._most_bytes:
                self.dropped += 1
                return
            if not (data := self._unwritten(data)):
                return
            self._lines.append(data)
            self._size += len(data)
            if len(self._lines) == 1:
                self._changed.notify()

    def flush(self, seconds: float = _ENDING_SECONDS) -> bool:
        """Waits up to `seconds` until all lines are written; returns whether they are."""
        end = time.monotonic() + seconds
        with self._changed:
            return self._changed.wait_for(lambda: not (self._lines or self._writing), max(0.0, end - time.monotonic()))

    def _unwritten(self, data: bytes) -> bytes:
        """Writes what can be written without blocking, and returns the rest; all of it where other lines come first."""
        now = time.monotonic()
        if self._lines or self._writing or self.dropped > self._reported_dropped or self._spacing.pause(now) > 0:
            return data
        count = _written_at_once(self._stream, data)
        if count:
            self._spacing.ran(now)
        return data[count:]

    def _run(self) -> None:
        while True:
            data = self._taken()
            with contextlib.suppress(OSError, ValueError):  # the reader has gone
                self._put(data)
            with self._changed:
                self._writing = False
                self._spacing.ran(now := time.monotonic())
                pause = self._spacing.pause(now)
                self._changed.notify_all()
            if pause > 0:
                time.sleep(pause)

    def _taken(self) -> bytes:
        """Waits for lines, and removes all from the queue."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines)
            lines, self._lines, self._size = self._lines, [], 0
            self._writing = True
            if self.dropped > self._reported_dropped:
                count, self._reported_dropped = self.dropped - self._reported_dropped, self.dropped
                lines.append(_encoded(json.dumps({"event": "log_lines_dropped", "count": count, "level": "warning"})))
            return b"".join(lines)

    def _put(self, data: bytes) -> None:
        """Writes to the file descriptor: a lock of Python's stream held here could keep the interpreter from ending."""
        try:
            number = self._stream.fileno()
        except OSError:  # a stream without a file, as in tests
            self._stream.write(data.decode())
            self._stream.flush()
            return
        left = memoryview(data)
        while left:
            left = left[os.write(number, left) :]


class Spacing:
    """Keeps events an interval apart, but for a few after a quiet moment: the generic cell rate algorithm, ITU-T I.371.

    Args:
        interval: Seconds between two events, on the average.
        burst: Events that may come at once after a quiet moment.
    """

    def __init__(self, interval: float, burst: int) -> None:
        self._interval = interval
        self._ahead = (burst - 1) * interval
        self._due = -float("inf")

    def pause(self, now: float) -> float:
        """Seconds until the next event may come; 0 or less where it may come at once."""
        return self._due - self._ahead - now

    def ran(self, now: float) -> None:
        """Records an event."""
        self._due = max(self._due, now) + self._interval


def _encoded(line: str) -> bytes:
    return f"{line}\n".encode(errors="backslashreplace")


def _written_at_once(stream: TextIO, data: bytes) -> int:
    """Writes what can be written without blocking to a pipe, socket or file; returns the number of bytes.

    That is 0 where the system does not support it, as Linux before 6.4 for a pipe, or where the stream is closed.
    """
    if not hasattr(os, "RWF_NOWAIT"):
        return 0
    try:
        return os.pwritev(stream.fileno(), [data], -1, os.RWF_NOWAIT)  # -1: where the last one ended
    except (OSError, ValueError):
        return 0


class LineLogger:
    """The logger behind structlog: each level's method takes a rendered line."""

    def __init__(self, writer: LineWriter) -> None:
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = self.exception = writer.write


class LineHandler(logging.Handler):
    """Handler for the standard library's loggers without a configuration of their own, such as asyncio's."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__(logging.WARNING)
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            self._writer.write(self.format(record))
        except Exception:  # as the standard library's handlers, but that prints to stderr
            self._writer.dropped += 1
