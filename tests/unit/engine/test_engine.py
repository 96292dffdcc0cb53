"""The device thread: right rows to the right job, and every future settled, whatever happens."""

import gc
import threading
import time
from concurrent.futures import CancelledError, wait

import numpy as np
import pytest

from xai_sidecar.engine.engine import Engine, _Job
from xai_sidecar.engine.scheduler import Lane
from xai_sidecar.engine.work import Forward, Kind, forward
from xai_sidecar.errors import (
    ConfigError,
    DeviceError,
    DeviceLostError,
    ExpiredError,
    ShuttingDownError,
)


def column(*values):
    return np.array(values, np.float32)[:, None]


def hold(backend, engine):
    """Occupies the device with a launch that does not end before the gate opens."""
    backend.gate.clear()
    future = engine.submit(forward(column(0)), Lane.PREDICT)
    assert backend.entered.acquire(timeout=10)
    return future


def test_rows_come_back_to_whom_they_belong(backend, start):
    engine = start(backend)
    held = hold(backend, engine)
    futures = [engine.submit(forward(column(*range(i, i + i % 7 + 1))), Lane.EXPLAIN) for i in range(1, 30)]
    backend.gate.set()
    for i, future in enumerate(futures, start=1):
        done = future.result(10)
        np.testing.assert_array_equal(done.value, 2 * column(*range(i, i + i % 7 + 1)))
        assert done.pass_count == i % 7 + 1
        assert done.seconds > 0
    held.result(10)


def test_jobs_waiting_together_share_launches(backend, start):
    records = []
    engine = start(backend, observe=records.append)
    held = hold(backend, engine)
    futures = [engine.submit(forward(column(i)), Lane.PREDICT) for i in range(7)]
    backend.gate.set()
    wait([held, *futures], 10)
    assert [(record.row_count, record.size) for record in records] == [(1, 1), (4, 4), (3, 4)]


def test_a_computation_of_many_steps(backend, start):
    def steps():
        total = 0.0
        value = column(1.0)
        for _ in range(5):
            value = yield Forward(value)
            total += float(value[0, 0])
        return total

    done = start(backend).submit(steps(), Lane.EXPLAIN).result(10)
    assert (done.value, done.pass_count) == (2 + 4 + 8 + 16 + 32, 5)


def test_a_computation_without_work(backend, start):
    def steps():
        return 7
        yield

    assert start(backend).submit(steps(), Lane.EXPLAIN).result(10).value == 7


def test_an_exception_in_a_computation_fails_that_job_only(backend, start):
    def steps():
        yield Forward(column(1.0))
        raise ZeroDivisionError

    engine = start(backend)
    bad, good = engine.submit(steps(), Lane.EXPLAIN), engine.submit(forward(column(3)), Lane.EXPLAIN)
    with pytest.raises(ZeroDivisionError):
        bad.result(10)
    assert good.result(10).value[0, 0] == 6
    assert not engine._jobs


def test_a_failing_row_fails_its_own_job_only(backend, start):
    engine = start(backend)
    backend.poison = 13.0
    held = hold(backend, engine)
    futures = [engine.submit(forward(column(value)), Lane.PREDICT) for value in (11.0, 12.0, 13.0, 14.0)]
    backend.gate.set()
    held.result(10)
    for value, future in zip((11.0, 12.0, 13.0, 14.0), futures, strict=True):
        if value == 13.0:
            with pytest.raises(DeviceError, match="RuntimeError: poisoned"):
                future.result(10)
        else:
            assert future.result(10).value[0, 0] == 2 * value


def test_a_cancelled_job_runs_no_further_and_its_neighbours_do(backend, start):
    def endless():
        while True:
            yield Forward(column(1.0))

    engine = start(backend)
    job = engine.submit(endless(), Lane.EXPLAIN)
    for _ in range(3):
        assert backend.entered.acquire(timeout=10)
    neighbour = engine.submit(forward(column(4)), Lane.EXPLAIN)
    assert job.cancel()
    assert neighbour.result(10).value[0, 0] == 8
    with pytest.raises(CancelledError):
        job.result(1)
    launches = len(backend.launches)
    engine.submit(forward(column(5)), Lane.EXPLAIN).result(10)
    assert len(backend.launches) <= launches + 2
    assert not engine._jobs


def test_a_job_expires_even_if_it_never_ran(backend, start):
    engine = start(backend)
    held = hold(backend, engine)
    late = engine.submit(forward(column(1)), Lane.EXPLAIN, deadline=time.monotonic() + 0.01)
    time.sleep(0.05)
    backend.gate.set()
    with pytest.raises(ExpiredError):
        late.result(10)
    held.result(10)
    assert all(1.0 not in rows for _, rows in backend.launches)


def test_close_finishes_what_is_under_way_and_takes_no_more(backend, start):
    engine = start(backend)
    held = hold(backend, engine)
    waiting = engine.submit(forward(column(1)), Lane.EXPLAIN)
    assert not engine.close(0.05)
    with pytest.raises(ShuttingDownError):
        engine.submit(forward(column(2)), Lane.PREDICT)
    backend.gate.set()
    assert engine.close(10)
    assert (held.done(), waiting.result(1).value[0, 0]) == (True, 2)
    assert backend.closed_on == "device"


def test_when_the_device_thread_dies_every_future_fails(backend, start):
    lost = []
    died = threading.Event()
    engine = start(backend, on_lost=lambda error: (lost.append(error), died.set()))
    held = hold(backend, engine)
    futures = [engine.submit(forward(column(i)), Lane.EXPLAIN) for i in range(3)]
    backend.sizes = None  # makes `costs` raise, which is outside any launch
    backend.gate.set()
    assert died.wait(10)
    for future in [held, *futures][1:]:
        with pytest.raises(DeviceLostError):
            future.result(10)
    with pytest.raises(DeviceLostError):
        engine.submit(forward(column(1)), Lane.PREDICT)
    assert isinstance(lost[0], TypeError)


def test_a_backend_that_cannot_be_made_says_so():
    def make():
        raise ConfigError("no such device", field="model.device")

    engine = Engine(make)
    with pytest.raises(ConfigError, match="no such device"):
        engine.start(lambda _: [Kind("forward")]).result(10)


def test_jobs_submitted_before_a_failed_start_fail_too():
    allow = threading.Event()

    def make():
        assert allow.wait(10)
        raise ConfigError("no such device", field="model.device")

    engine = Engine(make)
    ready = engine.start(lambda _: [Kind("forward")])
    early = engine.submit(forward(column(1)), Lane.PREDICT)
    allow.set()
    with pytest.raises(DeviceLostError):
        early.result(10)
    with pytest.raises(ConfigError):
        ready.result(10)


class Unreadable(Forward):
    def result(self, rows):
        raise IndexError("no such row")


def test_a_result_that_cannot_be_read_fails_that_job_only(backend, start):
    def steps():
        yield Unreadable(column(1.0))

    engine = start(backend)
    with pytest.raises(IndexError):
        engine.submit(steps(), Lane.EXPLAIN).result(10)
    assert engine.submit(forward(column(2)), Lane.EXPLAIN).result(10).value[0, 0] == 4


def test_a_computation_that_fails_to_close_disturbs_nobody(backend, start):
    def stubborn():
        try:
            while True:
                yield Forward(column(1.0))
        finally:
            raise ZeroDivisionError

    engine = start(backend)
    job = engine.submit(stubborn(), Lane.EXPLAIN)
    assert backend.entered.acquire(timeout=10)
    job.cancel()
    assert engine.submit(forward(column(2)), Lane.EXPLAIN).result(10).value[0, 0] == 4


def test_an_observer_that_fails_disturbs_nobody(backend, start, capsys):
    def observe(record):
        raise KeyError("metric")

    assert start(backend, observe=observe).submit(forward(column(2)), Lane.PREDICT).result(10).value[0, 0] == 4


def test_too_few_rows_from_the_device_are_an_error(backend, start):
    engine = start(backend)
    backend.run = lambda kind, rows: (rows[0][:0],)
    with pytest.raises(DeviceError, match="another number of rows"):
        engine.submit(forward(column(2)), Lane.PREDICT).result(10)


def test_nothing_of_a_job_outlives_it(backend, start):
    """The cyclic garbage collector comes seldom where there are many objects: inputs must be freed without it."""

    def alive():
        return sum(type(each) in (_Job, Forward) for each in gc.get_objects())

    engine = start(backend)
    gc.collect()
    before = alive()
    gc.disable()
    try:
        for i in range(20):
            engine.submit(forward(column(i)), Lane.PREDICT, deadline=time.monotonic() + 3600).result(10)
            job = engine.submit(forward(column(i)), Lane.EXPLAIN)
            job.cancel()
        engine.submit(forward(column(0)), Lane.PREDICT).result(10)
        time.sleep(0.05)  # for the device thread to let go of the last one
        # The device thread's own variables may still name the last one.
        assert alive() <= before + 2
    finally:
        gc.enable()


def test_a_flood_of_cancelled_jobs_costs_nothing(backend, start):
    engine = start(backend)
    held = hold(backend, engine)
    flood = [engine.submit(forward(column(i)), Lane.PREDICT) for i in range(5_000)]
    assert all(job.cancel() for job in flood)
    last = engine.submit(forward(column(3)), Lane.PREDICT)
    backend.gate.set()
    assert last.result(10).value[0, 0] == 6
    held.result(10)
    assert len(backend.launches) <= 3


def test_a_prediction_does_not_wait_for_explanations_to_begin(backend, start):
    """Their first steps make masks, which takes time; all of them together would take seconds."""
    engine = start(backend)
    held = hold(backend, engine)
    begun = []

    def slow_to_begin(number):
        begun.append(number)
        time.sleep(0.003)
        yield Forward(column(number))

    explanations = [engine.submit(slow_to_begin(number), Lane.EXPLAIN) for number in range(100)]

    def prediction():
        yield Forward(column(1))
        return len(begun)

    predicted = engine.submit(prediction(), Lane.PREDICT)
    backend.gate.set()
    assert predicted.result(10).value < 20
    wait(explanations, 30)
    assert begun == list(range(100))
    held.result(10)
