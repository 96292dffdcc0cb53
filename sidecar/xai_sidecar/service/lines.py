"""Writing log lines without waiting for whoever reads them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from typing import TextIO

_MOST_BYTES = 4 * 2**20
"""What may wait to be written."""

_TOGETHER_SECONDS = 0.01
"""How long a line waits for others: a write for each would cost its caller more than the line."""

_ENDING_SECONDS = 1.0


class LineWriter:
    """Writes lines to a stream on a thread of its own: a pipe that nobody drains must not stop those who log.

    What there is no room for is dropped and counted, and a line says so once there is room again.

    Args:
        stream: Where the lines go.
        most_bytes: What may wait to be written, about; one line is always taken.

    Attributes:
        dropped: Lines dropped so far.
    """

    def __init__(self, stream: TextIO, most_bytes: int = _MOST_BYTES) -> None:
        self._stream = stream
        self._most_bytes = most_bytes
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._size = 0
        self._writing = False
        self._told = 0  # of the lines dropped
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Has a line written, without its end; any thread may ask."""
        with self._changed:
            if self._lines and self._size + len(line) > self._most_bytes:
                self.dropped += 1
                return
            self._lines.append(line)
            self._size += len(line)
            if len(self._lines) == 1:
                self._changed.notify()

    def flush(self, seconds: float = _ENDING_SECONDS) -> bool:
        """Waits until all has been written, for so many seconds at the most; whether it has."""
        end = time.monotonic() + seconds
        with self._changed:
            return self._changed.wait_for(lambda: not (self._lines or self._writing), max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        while True:
            lines = self._taken()
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                self._put("".join(f"{line}\n" for line in lines))
            with self._changed:
                self._writing = False
                self._changed.notify_all()
            time.sleep(_TOGETHER_SECONDS)

    def _taken(self) -> list[str]:
        with self._changed:
            self._changed.wait_for(lambda: self._lines)
            lines, self._lines, self._size = self._lines, [], 0
            self._writing = True
            if self.dropped > self._told:
                count, self._told = self.dropped - self._told, self.dropped
                lines.append(json.dumps({"event": "log_lines_dropped", "count": count, "level": "warning"}))
            return lines

    def _put(self, text: str) -> None:
        """To the file itself, if there is one: a lock of Python's held here could keep the interpreter from ending."""
        try:
            number = self._stream.fileno()
        except OSError:  # of the tests' streams, which have none
            self._stream.write(text)
            self._stream.flush()
            return
        data = memoryview(text.encode(errors="backslashreplace"))
        while data:
            data = data[os.write(number, data) :]


class LineLogger:
    """What structlog writes to: each level's method takes a rendered line."""

    def __init__(self, writer: LineWriter) -> None:
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = self.exception = writer.write


class LineHandler(logging.Handler):
    """What the standard library's loggers write to that nobody has set up, asyncio's among them."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__(logging.WARNING)
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            self._writer.write(self.format(record))
        except Exception:  # as the standard library's handlers, but that prints to stderr
            self._writer.dropped += 1
