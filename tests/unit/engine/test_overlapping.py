"""Backends that run several batches at once."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.threads import MOST_STUCK
from xai_sidecar.engine.work import Forward, forward
from xai_sidecar.errors import DeviceError, DeviceLostError, HungError, UpstreamBusyError, UpstreamError

PATIENCE = 20


def column(*values):
    return np.array(values, np.float32)[:, None]


class Waiting:
    """Doubles its inputs, several batches at once; a batch waits while there is a gate for its first value.

    Values of `errors` have their batch fail, and each failure is counted in `failures`.
    """

    device = "elsewhere"
    engine = "arithmetic"
    version = "1"
    class_count = 1
    default_layer = None
    hang_is_fatal = False

    def __init__(self, concurrency=3, sizes=(1,)):
        self.layers = {}
        self.concurrency = concurrency
        self.sizes = sizes
        self.gates = {}
        self.errors = {}
        self.failures = []
        self.entered = []
        self.ended = []
        self.changed = threading.Condition()

    def hold(self, *values):
        for value in values:
            self.gates[value] = threading.Event()

    @property
    def gate(self):
        """Opens all gates when it is set, as the engine's fixture wants it."""
        return SimpleNamespace(set=lambda: [each.set() for each in self.gates.values()])

    def warm_up(self, kinds, report):
        return {}

    def costs(self, kind):
        return dict.fromkeys(self.sizes, 0.001)

    def run(self, kind, rows):
        first = float(rows[0][0, 0])
        with self.changed:
            self.entered.append(first)
            self.changed.notify_all()
        if first in self.gates:
            assert self.gates[first].wait(PATIENCE)
        with self.changed:
            self.ended.append(first)
            self.changed.notify_all()
        for value in rows[0][:, 0].tolist():
            if value in self.errors:
                self.failures.append(value)
                raise self.errors[value]
        return (2 * rows[0],)

    def until(self, true):
        with self.changed:
            assert self.changed.wait_for(true, PATIENCE)

    def close(self):
        pass


@pytest.fixture
def waiting():
    return Waiting()


def value(job):
    return float(job.result(PATIENCE).value[0, 0])


@pytest.mark.parametrize("lane", [Lane.PREDICT, Lane.EXPLAIN])
def test_as_many_batches_as_may_be_are_in_progress_and_no_more(waiting, start, lane):
    waiting.hold(1, 2, 3, 4)
    engine = start(waiting)
    jobs = [engine.submit(forward(column(number)), lane) for number in (1, 2, 3, 4)]
    waiting.until(lambda: len(waiting.entered) == 3)
    assert set(waiting.entered) == {1, 2, 3}
    waiting.gates[2].set()
    waiting.until(lambda: len(waiting.entered) == 4)  # in the place of the one that has ended
    assert value(jobs[1]) == 4
    assert not any(jobs[index].done() for index in (0, 2, 3))
    for number in (4, 1, 3):  # in any order
        waiting.gates[number].set()
    assert [value(job) for job in jobs] == [2, 4, 6, 8]


def test_slices_of_one_job_are_in_progress_together_and_put_in_order_again(waiting, start):
    waiting.hold(1)
    engine = start(waiting)
    job = engine.submit(forward(column(1, 2, 3, 4, 5)), Lane.EXPLAIN)
    waiting.until(lambda: len(waiting.ended) == 4)  # all but the first, which is held back
    waiting.gates[1].set()
    assert job.result(PATIENCE).value[:, 0].tolist() == [2, 4, 6, 8, 10]


def test_a_batch_that_fails_fails_the_job_at_fault_alone(start):
    backend = Waiting(sizes=(1, 2, 4))
    backend.hold(0)
    backend.errors[13] = RuntimeError("no such number")
    engine = start(backend)
    first = [engine.submit(forward(column(0)), Lane.EXPLAIN) for _ in range(3)]  # the others gather behind these
    backend.until(lambda: len(backend.entered) >= 1)
    jobs = [engine.submit(forward(column(number)), Lane.EXPLAIN) for number in (1, 2, 13, 3)]
    backend.gates[0].set()
    assert [value(jobs[index]) for index in (0, 1, 3)] == [2, 4, 6]
    with pytest.raises(DeviceError, match="no such number"):
        value(jobs[2])
    assert [value(job) for job in first] == [0, 0, 0]


@pytest.mark.parametrize("kind", [UpstreamError, UpstreamBusyError])
@pytest.mark.parametrize("lane", [Lane.PREDICT, Lane.EXPLAIN])
def test_what_is_no_rows_fault_fails_all_at_once(start, kind, lane):
    backend = Waiting(sizes=(4,), concurrency=2)
    backend.hold(0)
    backend.errors[13] = kind("It is away.", retry_seconds=7)
    engine = start(backend)
    first = [engine.submit(forward(column(0, 0, 0, 0)), lane) for _ in range(2)]
    backend.until(lambda: len(backend.entered) == 2)
    jobs = [engine.submit(forward(column(13)), lane) for _ in range(4)]
    backend.gates[0].set()
    for job in jobs:
        with pytest.raises(kind, match="away") as caught:
            value(job)
        assert caught.value.retry_seconds == 7
    assert len(backend.failures) <= 2  # a batch of four, or two where the first one went alone
    assert [value(job) for job in first] == [0, 0]


def test_evaluation_waits_until_what_is_away_is_back(start):
    backend = Waiting()
    backend.errors[5] = UpstreamError("It is away.", retry_seconds=0.05)
    engine = start(backend)
    job = engine.submit(forward(column(5)), Lane.EVALUATE)
    backend.until(lambda: len(backend.ended) >= 3)
    assert not job.done()
    del backend.errors[5]
    assert value(job) == 10


def test_evaluation_fails_with_what_no_waiting_mends(start):
    backend = Waiting()
    backend.errors[5] = UpstreamError("It is another model.")
    job = start(backend).submit(forward(column(5)), Lane.EVALUATE)
    with pytest.raises(UpstreamError, match="another model"):
        value(job)


def test_a_batch_that_hangs_fails_alone_and_leaves_room_for_others(waiting, start):
    waiting.hold(1)
    lost = []
    engine = start(waiting, on_lost=lost.append, hang_seconds=0.3)
    hanging = engine.submit(forward(column(1)), Lane.EXPLAIN)
    with pytest.raises(HungError):
        value(hanging)
    assert [value(engine.submit(forward(column(number)), Lane.PREDICT)) for number in (2, 3)] == [4, 6]
    waiting.gates[1].set()  # it comes back after all, and nobody waits for it
    waiting.until(lambda: 1 in waiting.ended)
    waiting.hold(7, 8, 9)
    jobs = [engine.submit(forward(column(number)), Lane.PREDICT) for number in (7, 8, 9)]
    waiting.until(lambda: {7, 8, 9} <= set(waiting.entered))  # as many as before, and no more
    for number in (7, 8, 9):
        waiting.gates[number].set()
    assert [value(job) for job in jobs] == [14, 16, 18]
    assert not lost and engine.alive


def test_the_device_is_lost_where_every_thread_hangs(start):
    backend = Waiting(concurrency=2)
    numbers = range(1, 2 * (MOST_STUCK + 1) + 1)
    backend.hold(*numbers)
    lost = []
    engine = start(backend, on_lost=lost.append, hang_seconds=0.1)
    jobs = [engine.submit(forward(column(number)), Lane.EXPLAIN) for number in numbers]
    for job in jobs:
        with pytest.raises((HungError, DeviceLostError)):
            value(job)
    patience = time.monotonic() + PATIENCE
    while not lost and time.monotonic() < patience:
        time.sleep(0.01)
    assert lost and not engine.alive


def test_no_second_counts_twice_where_batches_overlap(recorder, start):
    backend = Waiting(concurrency=3)
    backend.hold(1, 2, 3)
    began = time.monotonic()
    engine = start(backend, observer=recorder)
    jobs = [engine.submit(forward(column(number)), Lane.EXPLAIN) for number in (1, 2, 3)]
    backend.until(lambda: len(backend.entered) == 3)
    time.sleep(0.1)
    for number in (1, 2, 3):
        backend.gates[number].set()
    assert [value(job) for job in jobs] == [2, 4, 6]
    seconds = [record.seconds for record in recorder.launches]
    assert len(seconds) == 3 and 0.1 <= sum(seconds) <= time.monotonic() - began


def test_an_engine_closes_while_a_batch_of_nobody_is_in_progress(waiting, start):
    waiting.hold(1)
    engine = start(waiting)
    job = engine.submit(forward(column(1)), Lane.EXPLAIN)
    waiting.until(lambda: len(waiting.entered) == 1)
    assert job.cancel()
    assert engine.close(PATIENCE)


def test_rows_dropped_in_flight_harm_nobody(waiting, start):
    waiting.hold(1)
    engine = start(waiting)
    job = engine.submit(iter_twice(column(1, 2)), Lane.EXPLAIN)
    waiting.until(lambda: len(waiting.entered) == 2)
    job.cancel()
    waiting.gates[1].set()
    assert value(engine.submit(forward(column(4)), Lane.EXPLAIN)) == 8


def iter_twice(inputs):
    yield Forward(inputs)
    return (yield Forward(inputs))
