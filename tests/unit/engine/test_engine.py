"""The device thread: right rows to the right job, and every future settled, whatever happens."""

import threading
import time
from concurrent.futures import CancelledError, wait

import numpy as np
import pytest

from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.scheduler import Lane
from xai_sidecar.engine.work import Forward, Kind, forward
from xai_sidecar.errors import (
    ConfigError,
    DeviceError,
    DeviceLostError,
    ExpiredError,
    OverloadedError,
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
    assert engine.open_jobs == 0


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
    assert engine.open_jobs == 0


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


def test_the_queue_is_bounded_and_frees_up(backend, start):
    engine = start(backend, capacity=2)
    held = hold(backend, engine)
    second = engine.submit(forward(column(1)), Lane.PREDICT)
    with pytest.raises(OverloadedError) as refused:
        engine.submit(forward(column(2)), Lane.PREDICT)
    assert refused.value.retry_seconds > 0
    backend.gate.set()
    wait([held, second], 10)
    assert engine.submit(forward(column(2)), Lane.PREDICT).result(10).value[0, 0] == 4


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
    backend.sizes = None  # makes `costs` raise, which is outside any launch
    threading.excepthook, before = (lambda _: None), threading.excepthook
    try:
        futures = [engine.submit(forward(column(i)), Lane.EXPLAIN) for i in range(3)]
        assert died.wait(10)
        for future in futures:
            with pytest.raises(DeviceLostError):
                future.result(10)
        engine._thread.join(10)
        with pytest.raises((DeviceLostError, ShuttingDownError)):
            engine.submit(forward(column(1)), Lane.PREDICT)
    finally:
        threading.excepthook = before
    assert isinstance(lost[0], TypeError)
    assert not engine.alive


def test_a_backend_that_cannot_be_made_says_so():
    def make():
        raise ConfigError("no such device", field="model.device")

    engine = Engine(make)
    with pytest.raises(ConfigError, match="no such device"):
        engine.start(lambda _: [Kind("forward")]).result(10)
