"""Several batches at once, each on a thread of its own: for a backend that waits for somebody else's answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from xai_sidecar.engine.threads import Call, Worker
from xai_sidecar.engine.work import Array
from xai_sidecar.errors import HungError

Outcome: TypeAlias = "tuple[Array, ...] | Exception"
"""What a batch gave, or why it gave nothing."""


@dataclass(eq=False)
class _Running:
    """A batch in progress: on which thread, since when, and what to call once it has ended."""

    worker: Worker
    since: float
    ended: Callable[[Outcome], None]


class BatchThreads:
    """Threads that run batches beside each other. For the device thread, but where a method says otherwise.

    Args:
        count: How many batches may be in progress.
        deliver: Has a function called on the device thread; any thread may call it.
        name: What the threads are called, before their numbers.
    """

    def __init__(self, count: int, deliver: Callable[[Call], None], name: str = "device") -> None:
        self._deliver = deliver
        self._free = [Worker(f"{name}-{number}") for number in range(count)]
        self._all = tuple(self._free)
        self._running: list[_Running] = []
        self._stuck: list[_Running] = []  # given up, with no other thread in the place of theirs
        for worker in self._all:
            worker.start()

    def stop(self) -> None:
        """Ends the threads once they have come back."""
        for worker in self._all:
            worker.stop()

    @property
    def has_room(self) -> bool:
        """Whether another batch may begin."""
        return bool(self._free)

    @property
    def oldest(self) -> float | None:
        """When the oldest batch in progress began, on the clock of `time.monotonic`; any thread may ask."""
        return min((each.since for each in list(self._running)), default=None)

    def begin(self, run: Callable[[], tuple[Array, ...]], ended: Callable[[Outcome], None]) -> None:
        """Runs a batch on a thread of its own. There has to be room.

        Args:
            run: What runs it.
            ended: Called on the device thread with what came of it, once.
        """
        running = _Running(self._free.pop(), time.monotonic(), ended)
        self._running.append(running)

        def call() -> None:
            try:
                outcome: Outcome = run()
            except Exception as error:
                outcome = error
            self._deliver(partial(self._came_back, running, outcome))

        running.worker.call(call, given_up=lambda: self._deliver(partial(self._given_up, running)))

    def give_up(self) -> bool:
        """Gives up the oldest batch, which hangs; any thread may call it.

        Returns:
            Whether others can run; False where all threads hang, and none can be had in their place.
        """
        running = min(list(self._running), key=lambda each: each.since, default=None)
        if running is not None:
            running.worker.give_up()
        return not all(worker.hopeless for worker in self._all)

    def _came_back(self, running: _Running, outcome: Outcome) -> None:
        if running in self._running:
            self._running.remove(running)
            self._free.append(running.worker)
            running.ended(outcome)
        elif running in self._stuck:
            self._stuck.remove(running)
            self._free.append(running.worker)

    def _given_up(self, running: _Running) -> None:
        if running not in self._running:  # it has come back just then
            return
        self._running.remove(running)
        if running.worker.hopeless:
            self._stuck.append(running)
        else:
            self._free.append(running.worker)
        running.ended(HungError("The model's backend did not come back, and the batch was given up. Try again later."))
