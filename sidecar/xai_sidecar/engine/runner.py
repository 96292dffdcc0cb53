"""Calling a backend so that a hang of it ends what hangs, or the whole device."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.background import Background, BackgroundBatches
from xai_sidecar.engine.overlapping import BatchThreads
from xai_sidecar.engine.threads import MOST_STUCK, Call, ReplaceableThread, ReplacedError
from xai_sidecar.engine.watchdog import Watched
from xai_sidecar.engine.work import Array, Kind
from xai_sidecar.errors import DeviceError

_COMPILING_SECONDS = 900.0
"""How long a backend may compile on demand; large nets take minutes."""

_log = structlog.get_logger(__name__)


class Runner:
    """Runs batches on a backend, on the device thread, or beside each other on threads for that.

    Where a hang of the backend is fatal, the device is lost when it hangs. Where it is not, the device thread is given
    up, and another one takes its place. Where too many hang, the device is lost all the same.

    Args:
        hang_seconds: A batch that takes longer than this hangs; one that compiles first may take longer.
        thread: The device thread.
        lost: Called when the device is lost, with why; on the watchdog's thread.
        make_background: Called with the backend; gives what runs evaluation beside it, or None.
    """

    def __init__(
        self,
        hang_seconds: float,
        thread: ReplaceableThread,
        lost: Callable[[BaseException], None],
        make_background: Callable[[Backend], Background | None] = lambda backend: None,
    ) -> None:
        self._hang_seconds = hang_seconds
        self._thread = thread
        self._lost = lost
        self._backend: Backend | None = None
        self._abandons = False
        self._threads: BatchThreads | None = None
        self._make_background = make_background
        self._background: BackgroundBatches | None = None
        self._lock = threading.Lock()  # guards what is next, and which thread is the device thread
        self._since: float | None = None  # when the batch in progress began; None while there is none

    def use(
        self, backend: Backend, deliver: Callable[[Call], None]
    ) -> tuple[BatchThreads | None, BackgroundBatches | None]:
        """Says what to run on, once.

        Args:
            backend: The backend.
            deliver: Has a function called on the device thread.

        Returns:
            What runs batches beside each other, None where the backend runs one at a time; and what runs those of
            evaluation beside the backend, None where nothing does.
        """
        self._backend = backend
        self._abandons = not getattr(backend, "hang_is_fatal", True)
        concurrency = getattr(backend, "concurrency", 1)
        if concurrency > 1:
            self._threads = BatchThreads(concurrency, deliver)
        if (background := self._make_background(backend)) is not None:
            self._background = BackgroundBatches(background, deliver, backend.costs)
        return self._threads, self._background

    def stop(self) -> None:
        """Ends the threads that run batches beside each other, and what runs beside the backend."""
        if self._threads is not None:
            self._threads.stop()
        if self._background is not None:
            self._background.close()

    def run(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """As `Backend.run`, on the device thread or one of those beside it.

        Raises:
            ReplacedError: It hung, and another thread is the device thread now.
        """
        backend = self._backend
        if backend is None:
            raise RuntimeError("there is no backend yet")
        if self._threads is not None:
            return backend.run(kind, rows)
        self._since = time.monotonic()
        try:
            return backend.run(kind, rows)
        finally:
            with self._lock:
                if not self._thread.is_current:
                    raise ReplacedError
                self._since = None

    def watched(self, busy_since: Callable[[], float | None]) -> list[Watched]:
        """What a watchdog has to look at: the backend, and the device thread.

        Args:
            busy_since: When the device thread began with what it does, on any clock; None while it waits.
        """
        return [
            Watched(lambda: self._progress(self._since if self._abandons else None), self._longest, self._hangs),
            # Where a batch is given up, the device thread goes on only after that.
            Watched(
                lambda: self._progress(busy_since()),
                lambda: (1 + self._abandons) * self._longest(),
                lambda seconds: self._lost(DeviceError(f"The device has not come back for {seconds:.0f} s.")),
            ),
            Watched(lambda: self._threads and self._threads.oldest, self._longest, self._one_hangs),
        ]

    def _progress(self, since: float | None) -> tuple[float, bool] | None:
        """Changes when something gets on; compiling and running are two things. None while nothing is done."""
        return None if since is None else (since, self._compiling)

    @property
    def _compiling(self) -> bool:
        # Backends that compile nothing on demand need not say so.
        return getattr(self._backend, "compiling", False)

    def _longest(self) -> float:
        """Seconds that a batch may take."""
        return max(self._hang_seconds, _COMPILING_SECONDS * self._compiling)

    def _hangs(self, seconds: float) -> None:
        with self._lock:
            if self._since is None:  # it has come back just now
                return
            self._since = None
            stuck = self._thread.replace()
        _log.error("batch_hangs", seconds=round(seconds, 1), replaced=stuck <= MOST_STUCK)
        if stuck > MOST_STUCK:
            self._lost(DeviceError(f"The backend has not come back for {seconds:.0f} s, as several times before."))

    def _one_hangs(self, seconds: float) -> None:
        goes_on = self._threads is None or self._threads.give_up()
        _log.error("batch_hangs", seconds=round(seconds, 1), replaced=goes_on)
        if not goes_on:
            self._lost(DeviceError(f"No batch has come back for {seconds:.0f} s, on any of the backend's threads."))
