"""Calling a backend so that a hang of it ends what hangs, or the whole device."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import structlog

from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.job import settle
from xai_sidecar.engine.threads import Worker
from xai_sidecar.engine.watchdog import Watched
from xai_sidecar.engine.work import Array, Kind
from xai_sidecar.errors import DeviceError, HungError

_COMPILING_SECONDS = 900.0
"""How long a backend may compile on demand; large nets take minutes."""

_log = structlog.get_logger(__name__)


class Runner:
    """Runs batches on a backend.

    Where a hang of the backend is fatal, a batch runs on the device thread, and the device is lost when that hangs.
    Where it is not, it runs on a thread of its own, which is given up when it hangs: the batch fails with a HungError,
    and the next one runs on another thread. Where too many hang, the device is lost all the same.

    Args:
        hang_seconds: A batch that takes longer than this hangs; one that compiles first may take longer.
        lost: Called when the device is lost, with why; on the watchdog's thread.
    """

    def __init__(self, hang_seconds: float, lost: Callable[[BaseException], None]) -> None:
        self._hang_seconds = hang_seconds
        self._lost = lost
        self._worker = Worker("backend")
        self._backend: Backend | None = None
        self._abandons = False

    def use(self, backend: Backend) -> None:
        """Says what to run on, once."""
        self._backend = backend
        self._abandons = not getattr(backend, "hang_is_fatal", True)
        if self._abandons:
            self._worker.start()

    def run(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """As `Backend.run`, on the device thread.

        Raises:
            HungError: It did not come back.
        """
        backend = self._backend
        if backend is None:
            raise RuntimeError("there is no backend yet")
        if not self._abandons:
            return backend.run(kind, rows)
        answer: Future[tuple[Array, ...]] = Future()
        hung = HungError("The model's backend did not come back, and the batch was given up. Try again later.")
        self._worker.call(partial(_answer, answer, backend, kind, rows), partial(settle, answer.set_exception, hung))
        return answer.result()

    def stop(self) -> None:
        """Ends the thread, if there is one, after what it does."""
        self._worker.stop()

    def watched(self, busy_since: Callable[[], float | None]) -> list[Watched]:
        """What a watchdog has to look at: the backend, and the device thread.

        Args:
            busy_since: When the device thread began with what it does, on any clock; None while it waits.
        """
        return [
            Watched(lambda: self._progress(self._worker.busy_since), self._longest, self._hangs),
            # Where a batch is given up, the device thread goes on only after that.
            Watched(
                lambda: self._progress(busy_since()),
                lambda: (1 + self._abandons) * self._longest(),
                lambda seconds: self._lost(DeviceError(f"The device has not come back for {seconds:.0f} s.")),
            ),
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
        replaced = self._worker.give_up()
        _log.error("batch_hangs", seconds=round(seconds, 1), replaced=replaced)
        if not replaced:
            self._lost(DeviceError(f"The backend has not come back for {seconds:.0f} s, as several times before."))


def _answer(answer: Future[tuple[Array, ...]], backend: Backend, kind: Kind, rows: tuple[Array, ...]) -> None:
    try:
        settle(answer.set_result, backend.run(kind, rows))
    except BaseException as error:
        settle(answer.set_exception, error)
