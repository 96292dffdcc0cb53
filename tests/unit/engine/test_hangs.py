"""Computations that hang: they fail alone. The device is another matter; see `test_loss.py`."""

import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.job import JobOutcome
from xai_sidecar.engine.threads import MOST_STUCK, Worker
from xai_sidecar.engine.timer import Timer
from xai_sidecar.engine.watchdog import Watchdog, Watched
from xai_sidecar.engine.work import Forward, Partial, forward
from xai_sidecar.errors import ExpiredError, HungError

HANG = 0.3
LANES = [Lane.EXPLAIN, Lane.EVALUATE]


def column(*values):
    return np.array(values, np.float32)[:, None]


def until(true, seconds=10):
    patience = time.monotonic() + seconds
    while not true() and time.monotonic() < patience:
        time.sleep(0.005)
    assert true()


@pytest.fixture
def woken():
    """What hangs waits for this, which comes in the end."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def lost():
    return []


def hanging(woken, at=1):
    """Hangs after so many passes."""
    for _ in range(at):
        yield Forward(column(1))
    woken.wait(30)
    yield Forward(column(1))


# ------------------------------------------------------------------------------------ steps


@pytest.mark.parametrize("lane", LANES)
def test_a_step_that_hangs_fails_alone(backend, start, recorder, lost, woken, lane):
    engine = start(backend, observer=recorder, on_lost=lost.append, hang_seconds=HANG)
    began = time.monotonic()
    hung = engine.submit(hanging(woken), lane)
    others = [engine.submit(forward(column(number)), each) for number in range(4) for each in Lane]
    with pytest.raises(HungError, match="did not come back"):
        hung.result(10)
    assert time.monotonic() - began >= HANG
    assert [job.result(10).value[0, 0] for job in others] == [2 * number for number in range(4) for _ in Lane]
    assert recorder.outcomes(13)[lane, JobOutcome.HUNG] == 1
    assert engine.alive
    assert not lost
    woken.set()
    assert engine.close(10)


def test_what_comes_back_after_all_changes_nothing(backend, start, woken, capsys):
    engine = start(backend, hang_seconds=HANG)
    hung = engine.submit(hanging(woken), Lane.EXPLAIN)
    with pytest.raises(HungError):
        hung.result(10)
    before = len(backend.launches)
    woken.set()
    time.sleep(0.1)
    assert len(backend.launches) == before
    assert [thread.name for thread in threading.enumerate()].count("explain") == 1
    assert "failed_to_close" not in capsys.readouterr().out


def test_a_partial_result_that_hangs_fails_alone(backend, start, lost, woken):
    def hangs():
        while True:
            yield Forward(column(1))
            yield Partial(lambda: woken.wait(30))

    engine = start(backend, on_lost=lost.append, hang_seconds=HANG)
    job = engine.submit(hangs(), Lane.EXPLAIN, budget_end=time.monotonic() + 60)
    with pytest.raises(HungError):
        job.result(10)
    assert engine.submit(forward(column(1)), Lane.EXPLAIN).result(10).value[0, 0] == 2
    assert not lost


def test_a_look_that_hangs_is_answered(backend, start, woken):
    """Or else a stream would wait for ever."""

    def hangs():
        yield Partial(lambda: woken.wait(30))
        while True:
            yield Forward(column(1))

    engine = start(backend, hang_seconds=HANG)
    job = engine.submit(hangs(), Lane.EXPLAIN)
    assert engine.peek(job).result(10) is None
    with pytest.raises(HungError):
        job.result(10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_step_that_ends_its_thread_fails_alone(backend, start, lost):
    def leaves():
        yield Forward(column(1))
        raise SystemExit

    engine = start(backend, on_lost=lost.append, hang_seconds=HANG)
    with pytest.raises(HungError):
        engine.submit(leaves(), Lane.EXPLAIN).result(10)
    assert engine.submit(forward(column(1)), Lane.EXPLAIN).result(10)
    assert not lost


def test_where_too_many_hang_the_lane_takes_no_more_until_one_comes_back(backend, start, lost, woken):
    engine = start(backend, on_lost=lost.append, hang_seconds=HANG)
    jobs = [engine.submit(hanging(woken), Lane.EVALUATE) for _ in range(MOST_STUCK + 1)]
    behind = engine.submit(forward(column(1)), Lane.EVALUATE)
    for job in [*jobs, behind]:
        with pytest.raises(HungError):
            job.result(20)
    until(lambda: not engine.accepts(Lane.EVALUATE))
    with pytest.raises(HungError, match="Too many"):
        engine.submit(forward(column(1)), Lane.EVALUATE)
    for lane in (Lane.PREDICT, Lane.EXPLAIN):
        assert engine.submit(forward(column(1)), lane).result(10)
    woken.set()
    until(lambda: engine.accepts(Lane.EVALUATE))
    assert engine.submit(forward(column(3)), Lane.EVALUATE).result(10).value[0, 0] == 6
    assert engine.alive
    assert not lost


# ------------------------------------------------------------------------------------ observers


def test_an_observer_that_hangs_on_the_timer_keeps_no_other_deadline_from_being_kept(backend, start, woken):
    class Slow:
        def batch_ran(self, record): ...

        def ended(self, lane, outcome):
            if outcome is JobOutcome.EXPIRED and threading.current_thread().name == "timer" and not self.waited:
                self.waited = True
                woken.wait(30)

        waited = False

    engine = start(backend, observer=Slow(), hang_seconds=HANG)
    soon = time.monotonic() + 0.05
    jobs = [engine.submit(hanging(woken, 10**9), Lane.EXPLAIN, deadline=soon) for _ in range(2)]
    for job in jobs:
        with pytest.raises(ExpiredError):
            job.result(10)
    assert engine.alive


# ------------------------------------------------------------------------------------ compiling


def test_compiling_is_no_hang_but_what_comes_after_it_may_be(backend, start, lost, woken):
    run = backend.run

    def compiles(kind, rows):
        if rows[0][0, 0] == 5:
            backend.compiling = True
            time.sleep(3 * HANG)
            backend.compiling = False
        if rows[0][0, 0] == 6:
            woken.wait(30)
        return run(kind, rows)

    backend.run = compiles
    engine = start(backend, on_lost=lost.append, hang_seconds=HANG)
    assert engine.submit(forward(column(5)), Lane.EXPLAIN).result(10).value[0, 0] == 10
    assert not lost
    engine.submit(forward(column(6)), Lane.PREDICT)
    until(lambda: lost)


# ------------------------------------------------------------------------------------ the watchdog, without a clock


def watched(longest=10.0):
    one = SimpleNamespace(doing=None, told=[])
    one.watched = Watched(lambda: one.doing, lambda: longest, one.told.append)
    one.dog = Watchdog("dog", 1.0, [one.watched])
    return one


def test_what_stays_the_same_for_too_long_hangs_and_is_told_of_once():
    one = watched()
    one.doing = "a"
    for _ in range(11):
        one.dog.look(1.0)
    assert (one.told, one.watched.seconds) == ([], 10.0)
    for _ in range(20):
        one.dog.look(1.0)
    assert one.told == [11.0]
    one.doing = "b"
    for _ in range(12):
        one.dog.look(1.0)
    assert one.told == [11.0, 11.0]


def test_what_gets_on_or_has_nothing_to_do_does_not_hang():
    one = watched()
    for number in range(100):
        one.doing = None if number % 25 == 0 else number // 9
        one.dog.look(1.0)
    for _ in range(100):
        one.doing = None
        one.dog.look(1.0)
    assert one.told == []


def test_a_pause_of_the_whole_machine_counts_for_no_more_than_two_looks():
    one = watched()
    one.doing = "a"
    one.dog.look(1.0)
    for _ in range(4):
        one.dog.look(3600.0)
    assert (one.told, one.watched.seconds) == ([], 8.0)


def test_what_one_fails_at_does_not_keep_others_from_being_looked_at(capsys):
    told = []
    broken = Watched(lambda: 1 / 0, lambda: 1.0, told.append)
    good = Watched(lambda: "a", lambda: 1.0, told.append)
    dog = Watchdog("dog", 1.0, [broken, good])
    for _ in range(3):
        dog.look(1.0)
    assert told == [2.0]


# ------------------------------------------------------------------------------------ threads given up


def test_a_worker_that_is_given_up_goes_on_with_what_waits(woken):
    worker, done, told = Worker("worker"), threading.Event(), threading.Event()
    worker.start()
    worker.call(lambda: woken.wait(30), told.set)
    worker.call(done.set)
    until(lambda: worker.busy_since is not None)
    assert worker.give_up()
    assert told.wait(10)
    assert done.wait(10)
    assert not worker.hopeless
    worker.stop()


def test_giving_up_what_has_come_back_does_nothing():
    worker = Worker("worker")
    worker.start()
    worker.give_up()
    done = threading.Event()
    worker.call(done.set)
    assert done.wait(10)
    worker.stop()


# ------------------------------------------------------------------------------------ alarms


def test_cancelled_alarms_are_not_called_and_leave_nothing():
    timer = Timer("timer")  # not started
    day = time.monotonic() + 86_400
    alarms = [timer.at(day + number % 7, lambda: None) for number in range(1000)]
    kept = alarms[::10]
    for alarm in alarms:
        if alarm not in kept:
            alarm.cancel()
            alarm.cancel()
    assert len(timer._due) <= 2 * len(kept) + 1
    assert {id(entry[2]) for entry in timer._due if entry[2].function} == {id(alarm) for alarm in kept}
    for alarm in kept:
        alarm.cancel()
    assert timer._due == []


def test_of_alarms_cancelled_and_not_those_not_are_called_in_order():
    timer, called, done = Timer("timer"), [], threading.Event()
    now = time.monotonic()
    alarms = [timer.at(now + 0.1 + 0.001 * (number % 10), lambda n=number: called.append(n)) for number in range(50)]
    for number, alarm in enumerate(alarms):
        if number % 3:
            alarm.cancel()
    timer.at(now + 0.2, done.set)
    timer.start()
    assert done.wait(10)
    assert called == sorted(range(0, 50, 3), key=lambda number: (number % 10, number))
    alarms[0].cancel()  # too late
    timer.stop()


@pytest.mark.parametrize("lane", list(Lane))
def test_a_job_that_is_done_leaves_nothing_in_the_timer(backend, start, lane):
    engine = start(backend)
    later = time.monotonic() + 86_400

    def improving():
        for count in range(20):
            yield Partial(lambda count=count: count)
            yield Forward(column(1))
        return "all"

    jobs = [engine.submit(forward(column(1)), lane, deadline=later) for _ in range(50)]
    if lane is not Lane.PREDICT:
        jobs += [engine.submit(improving(), lane, deadline=later + 1, budget_end=later) for _ in range(10)]
    cancelled = engine.submit(hanging(threading.Event(), 10**6), lane, deadline=later)
    cancelled.cancel()
    for job in jobs:
        job.result(20)
    until(lambda: not engine._timer._due)
    assert not any(job.alarms for job in [*jobs, cancelled])


def test_what_nobody_waits_for_any_more_is_let_go_while_the_device_is_busy(backend, start, hold):
    """Or callers who come again and again would fill the memory while something compiles."""

    class Picture(np.ndarray):
        """An array that can be watched."""

    engine = start(backend)
    held = hold(backend, engine)
    kept = []
    for _ in range(5):
        picture = column(1).view(Picture)
        kept.append(weakref.ref(picture))
        engine.submit(forward(picture), Lane.PREDICT).cancel()
    del picture
    assert [reference() for reference in kept] == [None] * 5
    backend.gate.set()
    assert held.result(10)
    assert engine.submit(forward(column(2)), Lane.PREDICT).result(10).value[0, 0] == 4


def test_a_backend_that_does_not_let_go_is_a_device_that_hangs(backend, start, lost, woken):
    """A server that drains must come to its end."""
    backend.close = lambda: woken.wait(30)
    engine = start(backend, on_lost=lost.append, hang_seconds=HANG)
    assert engine.submit(forward(column(1)), Lane.PREDICT).result(10)
    assert not engine.close(0.05)
    until(lambda: lost)
    assert not engine.alive
