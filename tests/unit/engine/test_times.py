"""Deadlines, budgets and looking in: on time, whatever the device is doing."""

import math
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.job import JobOutcome
from xai_sidecar.engine.timer import Timer
from xai_sidecar.engine.work import Forward, Partial, forward
from xai_sidecar.errors import BudgetSpentError, ExpiredError

LATE = 0.15  # seconds, and what a busy machine takes to come to it
SLOW_LANES = [Lane.EXPLAIN, Lane.EVALUATE]


def column(*values):
    return np.array(values, np.float32)[:, None]


def improving(passes=10**9, at=None, make=None):
    """Has one more in hand after each pass; `at` says what to do before a pass, `make` works out what is in hand."""
    make = make or (lambda count: count)
    for count in range(passes):
        if at is not None and count in at:
            at[count]()
        yield Forward(column(100 + count))
        yield Partial(lambda count=count: make(count + 1))
    return passes


def timed(job):
    """A future of the time at which a job is settled."""
    at = Future()
    job.add_done_callback(lambda _: at.set_result(time.monotonic()))
    return at


# ------------------------------------------------------------------------------------ deadlines


@pytest.mark.parametrize("lane", Lane)
def test_deadlines_pass_on_time_while_the_device_is_stuck(backend, start, hold, recorder, lane, allowance):
    engine = start(backend, observer=recorder)
    held = hold(backend, engine)
    now = time.monotonic()
    deadlines = [now + 0.1 + 0.02 * i for i in range(5)]
    jobs = [engine.submit(forward(column(50 + i)), lane, deadline=at) for i, at in enumerate(deadlines)]
    for at, deadline in zip([timed(job) for job in jobs], deadlines, strict=True):
        assert 0 <= at.result(20) - deadline < allowance(LATE)
    for job in jobs:
        with pytest.raises(ExpiredError):
            job.result(0)
    backend.gate.set()
    held.result(10)
    engine.submit(forward(column(7)), Lane.EVALUATE).result(10)
    assert all(rows.max() < 50 for _, rows in backend.launches)
    assert recorder.outcomes(7)[lane, JobOutcome.EXPIRED] == 5


@pytest.mark.parametrize("lane", Lane)
def test_the_deadline_of_what_is_running_passes_too_and_nothing_of_it_runs_later(
    backend, start, recorder, lane, allowance
):
    engine = start(backend, observer=recorder)
    backend.gate.clear()
    deadline = time.monotonic() + 0.5  # by which it runs, on a busy machine, too
    job = engine.submit(forward(column(*range(50, 60))), lane, deadline=deadline)
    assert backend.entered.acquire(timeout=10)
    assert 0 <= timed(job).result(20) - deadline < allowance(LATE)
    backend.gate.set()
    engine.submit(forward(column(7)), Lane.EVALUATE).result(10)
    assert [rows[:, 0].tolist() for _, rows in backend.launches] == [[50, 51, 52, 53], [7]]
    assert recorder.outcomes(2)[lane, JobOutcome.EXPIRED] == 1


@pytest.mark.parametrize("lane", Lane)
def test_a_deadline_that_has_passed_already(backend, start, hold, lane):
    engine = start(backend)
    held = hold(backend, engine)
    job = engine.submit(forward(column(50)), lane, deadline=time.monotonic() - 1)
    with pytest.raises(ExpiredError):
        job.result(10)
    backend.gate.set()
    held.result(10)


def test_a_deadline_passes_on_time_while_steps_are_slow(backend, start, allowance):
    engine = start(backend)
    woken = threading.Event()

    def slow():
        woken.wait(20)
        yield Forward(column(50))

    deadline = time.monotonic() + 0.1
    jobs = [engine.submit(slow(), Lane.EXPLAIN, deadline=deadline) for _ in range(3)]
    for job in jobs:
        assert 0 <= timed(job).result(20) - deadline < allowance(LATE)
    woken.set()
    engine.submit(forward(column(7)), Lane.EXPLAIN).result(10)
    assert [rows[:, 0].tolist() for _, rows in backend.launches] == [[7]]


def test_what_is_done_before_its_deadline_does_not_expire(backend, start, recorder):
    engine = start(backend, observer=recorder)
    job = engine.submit(forward(column(1)), Lane.EXPLAIN, deadline=time.monotonic() + 0.4)
    assert job.result(10).value[0, 0] == 2
    time.sleep(0.45)
    assert recorder.ends == [(Lane.EXPLAIN, JobOutcome.DONE)]


# ------------------------------------------------------------------------------------ budgets


@pytest.mark.parametrize("lane", SLOW_LANES)
def test_a_budget_ends_an_endless_computation_with_the_best_so_far(backend, start, recorder, lane, allowance):
    engine = start(backend, observer=recorder)
    budget_end = time.monotonic() + 0.3
    job = engine.submit(improving(), lane, budget_end=budget_end)
    at = timed(job)
    done = job.result(10)
    assert done.cut_short
    assert -allowance(0.2) < at.result(20) - budget_end < allowance(LATE)
    assert done.value >= 2
    assert done.value <= done.pass_count <= 2 * done.value + 1
    launches = len(backend.launches)
    engine.submit(forward(column(7)), lane).result(10)
    assert len(backend.launches) <= launches + 2
    assert recorder.outcomes(2)[lane, JobOutcome.TRUNCATED] == 1


def test_while_the_device_is_stuck_the_newest_result_is_taken(backend, start, allowance):
    def make(count):
        time.sleep(0.03)  # so that time is set aside for it
        return count

    engine = start(backend)
    budget_end = time.monotonic() + 0.5
    job = engine.submit(improving(at={3: backend.gate.clear}, make=make), Lane.EXPLAIN, budget_end=budget_end)
    at = timed(job)
    done = job.result(10)
    assert (done.value, done.pass_count, done.cut_short) == (3, 3, True)
    assert -allowance(0.3) < at.result(20) - budget_end < allowance(LATE)
    backend.gate.set()
    engine.submit(forward(column(7)), Lane.EXPLAIN).result(10)
    assert [rows[:, 0].tolist() for _, rows in backend.launches][4:] == [[7]]


def test_while_the_steps_are_stuck_what_was_put_by_is_taken(backend, start, allowance):
    engine = start(backend)
    woken = threading.Event()
    budget_end = time.monotonic() + 0.5
    job = engine.submit(improving(at={3: lambda: woken.wait(20)}), Lane.EXPLAIN, budget_end=budget_end)
    at = timed(job)
    done = job.result(10)
    assert (done.value, done.cut_short) == (2, True)
    assert 0 <= at.result(20) - budget_end < allowance(LATE)
    woken.set()


@pytest.mark.parametrize("stuck", ["device", "steps"])
def test_a_budget_that_ends_before_there_is_anything(backend, start, recorder, stuck, allowance):
    engine = start(backend, observer=recorder)
    woken = threading.Event()
    budget_end = time.monotonic() + 0.1
    before = {"device": backend.gate.clear, "steps": lambda: woken.wait(20)}[stuck]
    job = engine.submit(improving(at={0: before}), Lane.EXPLAIN, budget_end=budget_end)
    assert 0 <= timed(job).result(20) - budget_end < allowance(LATE)
    with pytest.raises(BudgetSpentError):
        job.result(0)
    assert recorder.outcomes(1) == {(Lane.EXPLAIN, JobOutcome.TRUNCATED): 1}
    woken.set()


def test_what_has_nothing_at_the_end_of_its_budget_may_go_on_for_its_first(backend, start, recorder):
    engine = start(backend, observer=recorder)
    backend.gate.clear()
    now = time.monotonic()
    job = engine.submit(improving(), Lane.EXPLAIN, budget_end=now + 0.05, give_up=now + 30)
    time.sleep(0.15)
    assert not job.done()
    backend.gate.set()
    done = job.result(10)
    assert (done.value, done.cut_short) == (1, True)
    assert recorder.outcomes(1) == {(Lane.EXPLAIN, JobOutcome.TRUNCATED): 1}


def test_what_has_nothing_when_it_is_to_give_up_fails(backend, start, allowance):
    engine = start(backend)
    backend.gate.clear()
    now = time.monotonic()
    job = engine.submit(improving(), Lane.EXPLAIN, budget_end=now + 0.05, give_up=now + 0.2)
    assert 0 <= timed(job).result(20) - (now + 0.2) < allowance(LATE)
    with pytest.raises(BudgetSpentError):
        job.result(0)
    backend.gate.set()


def test_what_ends_before_its_budget_is_not_cut_short(backend, start, recorder):
    engine = start(backend, observer=recorder)
    job = engine.submit(improving(5), Lane.EXPLAIN, budget_end=time.monotonic() + 0.5)
    done = job.result(10)
    assert (done.value, done.pass_count, done.cut_short) == (5, 5, False)
    time.sleep(0.55)
    assert recorder.ends == [(Lane.EXPLAIN, JobOutcome.DONE)]


def test_a_budget_and_an_earlier_deadline(backend, start):
    engine = start(backend)
    now = time.monotonic()
    job = engine.submit(improving(), Lane.EXPLAIN, deadline=now + 0.1, budget_end=now + 0.3)
    with pytest.raises(ExpiredError):
        job.result(10)


def test_time_to_work_out_the_result_is_set_aside(backend, start, allowance):
    engine = start(backend)
    made = []

    def slowly(count):
        time.sleep(0.05)
        made.append(time.monotonic())
        return len(made)

    budget_end = time.monotonic() + 0.6
    job = engine.submit(improving(make=slowly), Lane.EXPLAIN, budget_end=budget_end)
    at = timed(job)
    done = job.result(10)
    assert at.result(20) - budget_end < allowance(LATE)
    assert done.cut_short
    # The first after a pass, and then after twice as many; and the last.
    assert 2 <= len(made) <= 3 + math.log2(done.pass_count)


def test_a_partial_result_that_cannot_be_made_leaves_the_job_alone(backend, start, capsys):
    def fails(count):
        raise ZeroDivisionError

    engine = start(backend)
    job = engine.submit(improving(5, make=fails), Lane.EXPLAIN, budget_end=time.monotonic() + 60)
    assert job.result(10).value == 5
    job = engine.submit(improving(make=fails), Lane.EXPLAIN, budget_end=time.monotonic() + 0.1)
    with pytest.raises(BudgetSpentError):
        job.result(10)


def test_without_a_budget_nothing_is_computed_for_a_deadline_that_is_far(backend, start):
    made = []
    engine = start(backend)
    job = engine.submit(
        improving(100, make=made.append), Lane.EXPLAIN, budget_end=time.monotonic() + 3600, give_up=float("inf")
    )
    assert job.result(10).value == 100
    assert made == []


def test_a_prediction_has_a_budget_too(backend, start, hold):
    engine = start(backend)
    held = hold(backend, engine)
    job = engine.submit(forward(column(50)), Lane.PREDICT, budget_end=time.monotonic() + 0.05)
    with pytest.raises(BudgetSpentError):
        job.result(10)
    backend.gate.set()
    held.result(10)


# ------------------------------------------------------------------------------------ looking in


def test_looking_in_before_during_and_after(backend, start):
    engine = start(backend)
    backend.gate.clear()
    job = engine.submit(improving(4, at={2: backend.gate.clear}), Lane.EXPLAIN)
    assert backend.entered.acquire(timeout=10)
    assert engine.peek(job).result(10) is None
    backend.gate.set()
    for _ in range(2):
        assert backend.entered.acquire(timeout=10)
    assert engine.peek(job).result(10) == 2
    assert engine.peek(job).result(10) == 2
    assert not job.done()
    backend.gate.set()
    assert job.result(10).value == 4
    assert engine.peek(job).result(10) is None


def test_looking_in_on_an_error(backend, start):
    def fails(count):
        raise ZeroDivisionError

    engine = start(backend)
    job = engine.submit(improving(make=fails, at={1: backend.gate.clear}), Lane.EXPLAIN)
    for _ in range(2):
        assert backend.entered.acquire(timeout=10)
    with pytest.raises(ZeroDivisionError):
        engine.peek(job).result(10)
    assert not job.done()
    job.cancel()


def test_one_who_does_not_wait_for_what_was_looked_at_disturbs_nobody(backend, start, capsys):
    engine = start(backend)
    job = engine.submit(improving(at={1: backend.gate.clear}), Lane.EXPLAIN)
    for _ in range(2):
        assert backend.entered.acquire(timeout=10)
    in_step, go_on = threading.Event(), threading.Event()
    blocking = engine.submit(improving(1, at={0: lambda: (in_step.set(), go_on.wait(10))}), Lane.EXPLAIN)
    assert in_step.wait(10)
    answer = engine.peek(job)
    assert answer.cancel()
    go_on.set()
    assert engine.peek(job).result(10) == 1
    backend.gate.set()
    assert blocking.result(10).value == 1
    job.cancel()
    assert "InvalidStateError" not in capsys.readouterr().out


def test_looking_in_when_all_is_over_is_answered(backend, start):
    engine = start(backend)
    job = engine.submit(improving(1), Lane.EXPLAIN)
    assert job.result(10).value == 1
    assert engine.close(10)
    assert engine.peek(job).result(10) is None


# ------------------------------------------------------------------------------------ the timer


def test_an_alarm_rings_on_time_though_the_thread_sleeps_for_one_that_was_cancelled(request, allowance):
    timer = Timer("timer")
    timer.start()
    request.addfinalizer(timer.stop)
    for later in (3600.0, 0.5, 60.0):
        timer.at(time.monotonic() + later, lambda: None).cancel()
        rung, due = Future(), time.monotonic() + 0.05
        timer.at(due, lambda rung=rung: rung.set_result(time.monotonic()))
        assert 0 <= rung.result(20) - due < allowance(LATE)


def test_deadlines_far_off_wake_nobody(request):
    timer, looks = Timer("timer"), []
    wait = timer._changed.wait
    timer._changed.wait = lambda seconds: looks.append(seconds) or wait(seconds)
    timer.start()
    request.addfinalizer(timer.stop)
    while not looks:
        time.sleep(0.001)
    timer.at(time.monotonic() + 100, lambda: None)
    for _ in range(200):
        timer.at(time.monotonic() + 200, lambda: None).cancel()
    rung = Future()
    timer.at(time.monotonic() + 0.01, lambda: rung.set_result(True))
    assert rung.result(20)
    assert len(looks) < 10
