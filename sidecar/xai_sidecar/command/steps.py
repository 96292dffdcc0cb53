"""Reports the steps of a start, and while one takes long that it still does."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from xai_sidecar.engine.backend import Report

_QUIET_SECONDS = 0.9
"""Longest time without a line, as long as the interpreter runs: some of MindSpore's calls hold it for longer."""


class StepReports:
    """A context in which no second passes without a line.

    Args:
        report: Called with a line, on any thread, one call at a time.
        quiet_seconds: Time after which a step that still goes on is reported again.
    """

    def __init__(self, report: Report, quiet_seconds: float = _QUIET_SECONDS) -> None:
        self._report = report
        self._quiet_seconds = quiet_seconds
        self._condition = threading.Condition()
        self._step: str | None = None
        self._since = 0.0
        self._ended = False
        self._thread = threading.Thread(target=self._repeat, name="steps", daemon=True)

    def __enter__(self) -> StepReports:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def __call__(self, step: str) -> None:
        """Reports a step, which goes on until the next one begins. After the context has ended nothing is reported."""
        with self._condition:
            if self._ended:
                return
            self._step, self._since = step, time.monotonic()
            self._report(step)
            self._condition.notify_all()

    def _repeat(self) -> None:
        with self._condition:
            while not self._ended:
                if not self._condition.wait(self._quiet_seconds) and self._step is not None:
                    self._report(f"{self._step}, for {time.monotonic() - self._since:.1f} s")
