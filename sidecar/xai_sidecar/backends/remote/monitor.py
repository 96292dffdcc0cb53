"""Watches whether a model on another server is there, and whether it is still the same one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from xai_sidecar.errors import SidecarError, UpstreamBusyError, UpstreamError

_PERIOD_SECONDS = 2.0
_AWAY_SECONDS = 0.5
"""How often it is looked at, and how often while it is away."""

_TRUST_SECONDS = 1.0
"""For so long a batch that was answered says that the model is there."""

_log = structlog.get_logger(__name__)


class Monitor:
    """Looks after a model on a thread of its own, from `start` to `close`.

    Args:
        name: The server and the model, in messages.
        present: Asks the server whether the model is there and has the metadata that it had.
        same: Asks the model whether it answers as it did at the start.

    Both raise a SidecarError where it is not so: one with `retry_seconds` where that may pass.
    """

    def __init__(self, name: str, present: Callable[[], None], same: Callable[[], None]) -> None:
        self._name = name
        self._present = present
        self._same = same
        self._lock = threading.Lock()  # guards the next line
        self._fault: SidecarError | None = None
        self._answered = 0.0
        self._woken = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)

    @property
    def unready(self) -> str:
        """Why the model can answer nothing; empty if it can. Any thread may ask."""
        fault = self._fault
        return "" if fault is None else fault.message

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._stopped = True
        self._woken.set()

    def check(self) -> None:
        """Raises what is wrong, if anything is; any thread may call it.

        Raises:
            UpstreamError: The model is not there, or is another one.
        """
        fault = self._fault
        if fault is not None:
            raise UpstreamError(fault.message, retry_seconds=fault.retry_seconds)

    def answered(self) -> None:
        """Records that the model has answered a batch; any thread may call it."""
        self._answered = time.monotonic()

    def failed(self, error: SidecarError) -> None:
        """Records that a batch has failed; any thread may call it. It is looked at at once."""
        if isinstance(error, UpstreamError):
            if error.retry_seconds is None:
                self._set(error)
            self._answered = 0.0
            self._woken.set()

    def look(self) -> None:
        """Looks once."""
        away, began = self._fault is not None, time.monotonic()
        if not away and began < self._answered + _TRUST_SECONDS:
            return
        try:
            self._present()
            if away:
                self._same()
        except UpstreamBusyError:
            return  # it is there
        except UpstreamError as error:
            if error.retry_seconds is None or self._answered < began:  # else it is busy rather than gone
                self._set(error)
        except SidecarError as error:  # it answers with failures, which may pass
            self._set(UpstreamError(error.message, retry_seconds=_AWAY_SECONDS))
        else:
            self._set(None)

    def _set(self, fault: SidecarError | None) -> None:
        with self._lock:
            before, self._fault = self._fault, fault
        if fault is not None and (before is None or before.message != fault.message):
            _log.warning("upstream_unready", upstream=self._name, why=fault.message)
        if fault is None and before is not None:
            _log.info("upstream_ready_again", upstream=self._name)

    def _run(self) -> None:
        while not self._stopped:
            self._woken.wait(_PERIOD_SECONDS if self._fault is None else _AWAY_SECONDS)
            self._woken.clear()
            if self._stopped:
                return
            try:
                self.look()
            except Exception:
                _log.exception("looking_after_the_upstream_failed", upstream=self._name)
