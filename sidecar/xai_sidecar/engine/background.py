"""Evaluation beside the device: batches on whatever runs them in CPU time that nobody else wants.

On a CPU, a batch of evaluation that has begun holds up the prediction that comes next. What runs at the lowest priority
of the operating system holds up nobody, and keeps CPUs awake in between. But where others leave it no time, or it has
ended, evaluation would stand still: then its batches are run on the device, in turn, as without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import structlog

from xai_sidecar.engine.batch import Batch
from xai_sidecar.engine.overlapping import BatchThreads, Outcome
from xai_sidecar.engine.threads import Call
from xai_sidecar.engine.work import Array, Kind

_LATE_SECONDS = 2.0
_LATE_RATIO = 10.0
"""A batch that takes longer than this, and than so many times what it should, has no time of the CPUs, or hangs."""

_REST_SECONDS = 30.0
"""How long nothing more begins after that."""

_log = structlog.get_logger(__name__)


class Background(Protocol):
    """Runs batches in CPU time that nobody else wants, beside a backend and with the same results but for rounding.

    Attributes:
        concurrency: How many batches may be in progress at once.
    """

    concurrency: int

    @property
    def used_seconds(self) -> float:
        """What its batches have used so far, in seconds of all CPUs; any thread may ask."""

    def takes(self, kind: Kind) -> bool:
        """Whether it runs batches of a kind at present. Asked for a kind that it might run, it gets ready to.

        It must be quick; on the device thread.
        """

    def costs(self, kind: Kind) -> Mapping[int, float]:
        """The batch sizes of a kind that it takes, with the seconds that a batch of each takes if nothing else runs."""

    def run(self, kind: Kind, size: int, columns: Columns) -> tuple[Array, ...]:
        """Runs a batch, as `Backend.run`, on as many threads as `concurrency` says.

        Args:
            kind: Of its rows.
            size: Batch size.
            columns: For each array of the table of `Backend.run` its parts, which are still to be put together and
                padded, see `batching.padded`: what would only be copied here need not be.

        Raises:
            Exception: It has failed, or ended. The batch is run on the device instead.
        """

    def close(self) -> None:
        """Ends it. Batches in progress fail."""


Columns: TypeAlias = "tuple[tuple[Array, ...], ...]"


@dataclass(eq=False)
class _Begun:
    """A batch in progress, when it is late, and whether it was given up."""

    batch: Batch
    late: float
    given_up: bool = False


Ended = Callable[[float, "Outcome | None"], None]
"""Called with what was used since the last batch ended, in seconds of all CPUs, and what the batch gave; None if it was
given up."""


class BackgroundBatches:
    """The batches in progress beside the device. For the device thread alone.

    Args:
        background: Runs them.
        deliver: Has a function called on the device thread; any thread may call it.
        costs_on_device: The batch sizes of a kind on the device, with their costs.
    """

    def __init__(
        self,
        background: Background,
        deliver: Callable[[Call], None],
        costs_on_device: Callable[[Kind], Mapping[int, float]],
    ) -> None:
        self._background = background
        self._costs_on_device = costs_on_device
        self._threads = BatchThreads(background.concurrency, deliver, "background")
        self._begun: list[_Begun] = []
        self._rests_until = float("-inf")
        self._used = 0.0  # of what has ended
        self.run = background.run

    @property
    def has_room(self) -> bool:
        """Whether another batch may begin."""
        return self._threads.has_room

    @property
    def next_late(self) -> float | None:
        """When the next batch in progress is late, on the clock of `time.monotonic`; None if none will be."""
        return min((each.late for each in self._begun if not each.given_up), default=None)

    def takes(self, kind: Kind) -> bool:
        """Whether batches of a kind run here at present."""
        if any(each.given_up for each in self._begun) or time.monotonic() < self._rests_until:
            return False
        return self._background.takes(kind)

    def costs(self, kind: Kind) -> Mapping[int, float]:
        """The batch sizes of a kind and their costs, but none too large for the device, which may have to take over."""
        most = max(self._costs_on_device(kind))
        return {size: seconds for size, seconds in self._background.costs(kind).items() if size <= most}

    def begin(self, batch: Batch, run: Callable[[], tuple[Array, ...]], ended: Ended) -> None:
        """Begins a batch. There has to be room."""
        begun = _Begun(batch, time.monotonic() + max(_LATE_SECONDS, _LATE_RATIO * batch.expected_seconds))
        self._begun.append(begun)
        self._threads.begin(run, partial(self._ended, begun, ended))

    def give_up_late(self) -> list[Batch]:
        """Gives up the batches that are late, which are to be run elsewhere; nothing more begins for a while."""
        now = time.monotonic()
        late = [each for each in self._begun if not each.given_up and now >= each.late]
        for each in late:
            each.given_up = True
        if late:
            self._rests_until = now + _REST_SECONDS
            _log.info("background_gets_no_time", batches=len(late), rests_seconds=_REST_SECONDS)
        return [each.batch for each in late]

    def close(self) -> None:
        """Ends it; batches in progress fail."""
        self._background.close()
        self._threads.stop()

    def _ended(self, begun: _Begun, ended: Ended, outcome: Outcome) -> None:
        self._begun.remove(begun)
        before, self._used = self._used, self._background.used_seconds
        if isinstance(outcome, Exception) and not begun.given_up:
            _log.warning("background_batch_failed", kind=str(begun.batch.kind), exc_info=outcome)
        ended(max(0.0, self._used - before), None if begun.given_up else outcome)
