"""Backends whose hang is not fatal: what hangs fails alone."""

import threading
import time

import numpy as np
import pytest

from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.job import JobOutcome
from xai_sidecar.engine.threads import MOST_STUCK
from xai_sidecar.engine.work import KIND_NAMES, forward
from xai_sidecar.errors import DeviceLostError, HungError

HANG = 0.3
POISON = 13


def column(*values):
    return np.array(values, np.float32)[:, None]


def until(true, seconds=10):
    patience = time.monotonic() + seconds
    while not true() and time.monotonic() < patience:
        time.sleep(0.005)
    assert true()


@pytest.fixture
def lost():
    return []


@pytest.fixture
def remote(backend):
    """Batches with a poisonous value do not come back before `woken` is set."""
    run, backend.woken, backend.hung = backend.run, threading.Event(), []

    def hang(kind, rows):
        if POISON in rows[0]:
            backend.hung.append(rows[0])
            backend.woken.wait(30)
        return run(kind, rows)

    backend.run, backend.hang_is_fatal = hang, False
    yield backend
    backend.woken.set()


def test_a_batch_that_hangs_fails_alone(remote, start, recorder, lost):
    engine = start(remote, observer=recorder, on_lost=lost.append, hang_seconds=HANG)
    for count, lane in enumerate(Lane, start=1):
        began = time.monotonic()
        hung = engine.submit(forward(column(POISON)), lane)
        until(lambda: len(remote.hung) == count)  # noqa: B023, or others would share its batch
        others = [engine.submit(forward(column(number)), each) for number in range(3) for each in Lane]
        with pytest.raises(HungError, match="batch was given up"):
            hung.result(10)
        assert time.monotonic() - began >= HANG
        assert [job.result(10).value[0, 0] for job in others] == [2 * number for number in range(3) for _ in Lane]
        assert recorder.outcomes(10 * count)[lane, JobOutcome.HUNG] == 1
    assert engine.alive
    assert not lost


def test_all_jobs_of_a_batch_that_hangs_fail_at_once(remote, start, hold, lost):
    """They are not tried apart, as those of one that fails: each half might hang as long."""
    engine = start(remote, on_lost=lost.append, hang_seconds=2 * HANG)
    first = hold(remote, engine)
    jobs = [engine.submit(forward(column(POISON)), Lane.PREDICT) for _ in range(4)]
    remote.gate.set()
    first.result(10)
    for job in jobs:
        with pytest.raises(HungError):
            job.result(10)
    assert [len(rows) for rows in remote.hung] == [4]


def test_batches_run_on_the_device_thread_and_on_the_one_in_its_place(remote, start):
    """Handing each batch to another thread and back takes a third of a millisecond, and more on a busy machine."""
    run, threads = remote.run, []

    def noted(kind, rows):
        threads.append(threading.current_thread())
        return run(kind, rows)

    remote.run = noted
    engine = start(remote, hang_seconds=HANG)
    for value in (1, 2, POISON, 3, 4):
        job = engine.submit(forward(column(value)), Lane.PREDICT)
        if value == POISON:
            with pytest.raises(HungError):
                job.result(10)
        else:
            assert job.result(10).value[0, 0] == 2 * value
    first, second, hung, third, fourth = threads
    assert first is second is hung is not third is fourth
    assert {thread.name for thread in threads} == {"device"}
    remote.woken.set()
    until(lambda: not hung.is_alive())  # it comes back, and finds another one in its place
    assert third.is_alive()
    assert engine.submit(forward(column(5)), Lane.PREDICT).result(10).value[0, 0] == 10


def test_what_comes_back_after_all_changes_nothing(remote, start, lost):
    engine = start(remote, on_lost=lost.append, hang_seconds=HANG)
    hung = engine.submit(forward(column(POISON)), Lane.PREDICT)
    with pytest.raises(HungError):
        hung.result(10)
    remote.woken.set()
    assert engine.submit(forward(column(1)), Lane.PREDICT).result(10).value[0, 0] == 2
    assert engine.close(10)
    assert remote.closed_on == "device"


def test_too_many_that_hang_lose_the_device(remote, start, lost):
    engine = start(remote, on_lost=lost.append, hang_seconds=HANG)
    for _ in range(MOST_STUCK):
        with pytest.raises(HungError):
            engine.submit(forward(column(POISON)), Lane.PREDICT).result(10)
    assert not lost
    with pytest.raises((HungError, DeviceLostError)):
        engine.submit(forward(column(POISON)), Lane.PREDICT).result(10)
    assert engine.close(10)
    until(lambda: lost)  # the watchdog says so after it has failed the jobs
    assert len(lost) == 1
    assert not engine.alive


def test_a_batch_that_fails_is_an_error_as_on_any_backend(remote, start, lost):
    remote.poison = 7
    engine = start(remote, on_lost=lost.append)
    with pytest.raises(Exception, match="poisoned"):
        engine.submit(forward(column(7)), Lane.EXPLAIN).result(10)
    assert engine.submit(forward(column(1)), Lane.EXPLAIN).result(10).value[0, 0] == 2


def test_the_contract_tells_of_every_kind_and_no_other():
    ruled = Backend.run.__doc__.split("================")
    told = [line.split()[0] for line in "".join(ruled).splitlines() if line[:8].isspace() and line[8:9].strip()]
    assert [name for name in told if name in KIND_NAMES] == list(KIND_NAMES)
