"""The end: closing, a device thread that dies, and threads that hang."""

import threading
import time

import numpy as np
import pytest

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.job import JobOutcome
from xai_sidecar.engine.work import Forward, Kind, forward
from xai_sidecar.errors import DeviceLostError, ExpiredError, ShuttingDownError

HANG = 0.3
NAMES = {"device", "explain", "evaluate", "timer", "watchdog"}


def column(*values):
    return np.array(values, np.float32)[:, None]


class Lost:
    """Told that a device is lost; expects to be told once."""

    def __init__(self):
        self.errors = []
        self.event = threading.Event()

    def __call__(self, error):
        self.errors.append(error)
        self.event.set()


@pytest.fixture
def lost():
    return Lost()


def assert_all_is_over(engine, lost, jobs):
    assert lost.event.wait(10)
    for job in jobs:
        with pytest.raises(DeviceLostError):
            job.result(10)
    for lane in Lane:
        with pytest.raises(DeviceLostError):
            engine.submit(forward(column(1)), lane)
    assert not engine.alive
    time.sleep(HANG)
    assert len(lost.errors) == 1


# ------------------------------------------------------------------------------------ hanging


def test_a_launch_that_hangs_fails_every_job(backend, start, hold, recorder, lost, allowance):
    engine = start(backend, observer=recorder, on_lost=lost, hang_seconds=HANG)
    began = time.monotonic()
    jobs = [hold(backend, engine)]
    jobs += [engine.submit(forward(column(50)), lane) for lane in Lane for _ in range(5)]
    assert lost.event.wait(10)
    assert HANG <= time.monotonic() - began < HANG + allowance(0.5)
    assert_all_is_over(engine, lost, jobs)
    assert recorder.outcomes(16) == {(lane, JobOutcome.FAILED): 5 + (lane is Lane.PREDICT) for lane in Lane}
    backend.gate.set()
    assert engine.close(10)
    assert all(rows.max() < 50 for _, rows in backend.launches)
    assert recorder.outcomes(16).total() == 16


def test_a_step_of_a_prediction_that_hangs_fails_every_job(backend, start, lost):
    engine = start(backend, on_lost=lost, hang_seconds=HANG)
    woken = threading.Event()

    def hangs():
        yield Forward(column(1))
        woken.wait(10)

    try:
        assert_all_is_over(engine, lost, [engine.submit(hangs(), Lane.PREDICT)])
    finally:
        woken.set()


def test_much_work_is_no_hang(backend, start, lost):
    run = backend.run
    backend.run = lambda kind, rows: time.sleep(0.02) or run(kind, rows)
    engine = start(backend, on_lost=lost, hang_seconds=HANG)

    def steps():
        for _ in range(4):
            time.sleep(0.01)
            yield Forward(column(*range(20)))

    jobs = [engine.submit(steps(), lane) for lane in Lane]
    for job in jobs:
        job.result(20)
    time.sleep(2 * HANG)  # nor is none
    assert engine.alive
    assert not lost.errors


# ------------------------------------------------------------------------------------ dying


def test_when_the_device_thread_dies_every_future_fails(backend, start, hold, lost):
    engine = start(backend, on_lost=lost)
    hold(backend, engine)
    jobs = [engine.submit(forward(column(i)), lane) for lane in Lane for i in range(3)]
    time.sleep(0.05)
    backend.sizes = None  # makes `costs` raise, which is outside any launch
    backend.gate.set()
    assert_all_is_over(engine, lost, jobs)
    assert isinstance(lost.errors[0], TypeError)
    assert engine.close(10)
    assert backend.closed_on is None


def test_an_interrupt_within_a_launch_loses_the_device(backend, start, lost):
    def interrupted(kind, rows):
        backend.gate.wait(10)
        raise KeyboardInterrupt

    backend.run = interrupted
    backend.gate.clear()
    engine = start(backend, on_lost=lost)
    jobs = [engine.submit(forward(column(1)), lane) for lane in Lane]
    backend.gate.set()
    assert_all_is_over(engine, lost, jobs)


def test_a_device_thread_that_hangs_and_then_dies_is_told_of_once(backend, start, recorder, lost):
    def interrupted(kind, rows):
        backend.gate.wait(10)
        raise KeyboardInterrupt

    backend.run = interrupted
    backend.gate.clear()
    engine = start(backend, observer=recorder, on_lost=lost, hang_seconds=HANG)
    jobs = [engine.submit(forward(column(1)), lane) for lane in Lane]
    assert_all_is_over(engine, lost, jobs)
    backend.gate.set()
    assert engine.close(10)
    assert len(lost.errors) == 1
    assert recorder.outcomes(3).total() == 3


def test_an_unforeseen_end_is_told_though_those_who_wait_fail(backend, start, hold, recorder, lost):
    """Callbacks on futures are others' code."""
    engine = start(backend, observer=recorder, on_lost=lost, hang_seconds=HANG)
    jobs = [hold(backend, engine), engine.submit(forward(column(1)), Lane.EXPLAIN)]
    jobs[0].add_done_callback(lambda job: 1 / 0)
    assert_all_is_over(engine, lost, jobs)


# ------------------------------------------------------------------------------------ closing


def test_close_finishes_what_is_under_way_and_takes_no_more(backend, start, hold):
    engine = start(backend)
    held = hold(backend, engine)

    def steps():
        for value in range(3):
            yield Forward(column(value))
        return "all"

    waiting = [engine.submit(steps(), lane) for lane in Lane]
    closing = threading.Thread(target=engine.close, args=(10,), daemon=True)
    closing.start()
    time.sleep(0.05)
    for lane in Lane:
        with pytest.raises(ShuttingDownError):
            engine.submit(forward(column(2)), lane)
    assert not held.done()
    backend.gate.set()
    closing.join(10)
    assert not closing.is_alive()
    assert [job.result(1).value for job in [held, *waiting][1:]] == ["all"] * 3
    assert backend.closed_on == "device"
    assert not engine.alive
    assert engine.close(0)


def test_a_close_that_does_not_come_to_an_end_says_so_and_leaves_all_as_it_is(backend, start, hold):
    """What is under way still ends, by itself or at its deadline."""
    engine = start(backend)
    held = hold(backend, engine)
    waiting = engine.submit(forward(column(1)), Lane.EXPLAIN)
    late = engine.submit(forward(column(1)), Lane.EXPLAIN, deadline=time.monotonic() + 0.2)
    assert not engine.close(0.05)
    with pytest.raises(ExpiredError):
        late.result(2)
    backend.gate.set()
    assert engine.close(5)
    assert (held.done(), waiting.result(1).value[0, 0]) == (True, 2)
    assert backend.closed_on == "device"


def test_closing_what_does_nothing(backend, start):
    assert Engine(lambda: backend).close(1)
    engine = start(backend)
    assert engine.alive
    assert engine.close(10)
    assert backend.closed_on == "device"


def test_closing_ends_the_threads(backend):
    before = set(threading.enumerate())
    engine = Engine(lambda: backend)
    engine.start(lambda _: [Kind("forward")]).result(10)
    for lane in Lane:
        engine.submit(forward(column(1)), lane).result(10)
    assert {thread.name for thread in set(threading.enumerate()) - before} == NAMES
    assert engine.close(10)
    patience = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < patience:
        time.sleep(0.001)
    assert not set(threading.enumerate()) - before


def test_jobs_submitted_while_it_closes_are_refused_or_done(backend, start):
    """Never left waiting."""
    for _ in range(30):
        engine = start(backend)
        jobs, refused = [], []
        go = threading.Barrier(3)

        def submit(lane, engine=engine, jobs=jobs, refused=refused, go=go):
            go.wait(10)
            for i in range(50):
                try:
                    jobs.append(engine.submit(forward(column(i)), lane))
                except ShuttingDownError:
                    refused.append(i)
                    return

        threads = [threading.Thread(target=submit, args=(lane,), daemon=True) for lane in (Lane.PREDICT, Lane.EXPLAIN)]
        for thread in threads:
            thread.start()
        go.wait(10)
        assert engine.close(10)
        for thread in threads:
            thread.join(10)
        assert all(job.done() and job.exception() is None for job in jobs)
