"""Jobs: right rows to the right one, each stepped where it should be, and every future settled, whatever happens."""

import gc
import random
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, wait
from functools import partial

import numpy as np
import pytest

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.job import Job, JobOutcome
from xai_sidecar.engine.scheduler import Policy
from xai_sidecar.engine.work import Forward, Kind, Partial, forward
from xai_sidecar.errors import BudgetSpentError, ConfigError, DeviceError, DeviceLostError, ExpiredError


def column(*values):
    return np.array(values, np.float32)[:, None]


def endless(begun=None):
    while True:
        yield Forward(column(1.0))
        if begun is not None:
            begun.release()


def test_rows_come_back_to_whom_they_belong(backend, start, hold):
    engine = start(backend)
    held = hold(backend, engine)
    lanes = list(Lane)
    futures = [engine.submit(forward(column(*range(i, i + i % 7 + 1))), lanes[i % 3]) for i in range(1, 60)]
    backend.gate.set()
    for i, future in enumerate(futures, start=1):
        done = future.result(10)
        np.testing.assert_array_equal(done.value, 2 * column(*range(i, i + i % 7 + 1)))
        assert done.pass_count == i % 7 + 1
        assert done.seconds > 0
        assert not done.cut_short
    held.result(10)


def test_jobs_waiting_together_share_launches(backend, start, hold, recorder):
    engine = start(backend, observer=recorder)
    held = hold(backend, engine)
    futures = [engine.submit(forward(column(i)), Lane.PREDICT) for i in range(7)]
    backend.gate.set()
    wait([held, *futures], 10)
    assert [(record.row_count, record.size) for record in recorder.launches] == [(1, 1), (4, 4), (3, 4)]
    assert [len(record.waits) for record in recorder.launches] == [1, 4, 3]


@pytest.mark.parametrize("lane", Lane)
def test_a_computation_of_many_steps(backend, start, lane):
    def steps():
        total = 0.0
        value = column(1.0)
        for _ in range(5):
            value = yield Forward(value)
            total += float(value[0, 0])
            yield Partial(lambda total=total: total)
        return total

    done = start(backend).submit(steps(), lane).result(10)
    assert (done.value, done.pass_count) == (2 + 4 + 8 + 16 + 32, 5)


@pytest.mark.parametrize("lane", Lane)
def test_a_computation_without_work(backend, start, lane):
    def steps():
        return 7
        yield

    assert start(backend).submit(steps(), lane).result(10).value == 7


@pytest.mark.parametrize(
    ("lane", "thread"), [(Lane.PREDICT, "device"), (Lane.EXPLAIN, "explain"), (Lane.EVALUATE, "evaluate")]
)
def test_where_computations_are_stepped_and_closed(backend, start, lane, thread):
    names, closed = [], threading.Event()

    def steps():
        try:
            for _ in range(3):
                names.append(threading.current_thread().name)
                yield Forward(column(1.0))
            yield from endless()
        finally:
            names.append(threading.current_thread().name)
            closed.set()

    job = start(backend).submit(steps(), lane)
    for _ in range(5):
        assert backend.entered.acquire(timeout=10)
    job.cancel()
    assert closed.wait(10)
    assert names == [thread] * 4


@pytest.mark.parametrize("lane", Lane)
def test_an_exception_in_a_computation_fails_that_job_only(backend, start, lane):
    def steps():
        yield Forward(column(1.0))
        raise ZeroDivisionError

    engine = start(backend)
    bad, good = engine.submit(steps(), lane), engine.submit(forward(column(3)), lane)
    with pytest.raises(ZeroDivisionError):
        bad.result(10)
    assert good.result(10).value[0, 0] == 6


@pytest.mark.parametrize("lane", Lane)
def test_work_without_rows_fails_that_job_only(backend, start, lane):
    def steps():
        yield Forward(column(1.0))
        yield Forward(np.zeros((0, 1), np.float32))

    engine = start(backend)
    with pytest.raises(ValueError, match="no rows"):
        engine.submit(steps(), lane).result(10)
    assert engine.submit(forward(column(3)), lane).result(10).value[0, 0] == 6


class Unreadable(Forward):
    def result(self, rows):
        raise IndexError("no such row")


@pytest.mark.parametrize("lane", Lane)
def test_a_result_that_cannot_be_read_fails_that_job_only(backend, start, lane):
    def steps():
        yield Unreadable(column(1.0))

    engine = start(backend)
    with pytest.raises(IndexError):
        engine.submit(steps(), lane).result(10)
    assert engine.submit(forward(column(2)), lane).result(10).value[0, 0] == 4


@pytest.mark.parametrize("lane", Lane)
def test_a_failing_row_fails_its_own_job_only(backend, start, hold, recorder, lane):
    engine = start(backend, observer=recorder)
    backend.poison = 13.0
    held = hold(backend, engine)
    values = (11.0, 12.0, 13.0, 14.0)
    futures = [engine.submit(forward(column(value)), lane) for value in values]
    time.sleep(0.05)
    backend.gate.set()
    held.result(10)
    for value, future in zip(values, futures, strict=True):
        if value == 13.0:
            with pytest.raises(DeviceError, match="RuntimeError: poisoned"):
                future.result(10)
        else:
            assert future.result(10).value[0, 0] == 2 * value
    assert [len(rows) for _, rows in backend.launches[1:]] == [4, 2, 2, 1, 1]
    outcomes = recorder.outcomes(5)
    assert outcomes[lane, JobOutcome.FAILED] == 1
    assert sum(outcomes[each, JobOutcome.DONE] for each in Lane) == 4


def test_rows_that_shared_launches_with_poison_are_put_together_in_order(backend, start, hold):
    """Their parts come back in whatever order, as launches fail and are tried again between predictions."""
    engine = start(backend, policy=Policy(explain_share=0.5))
    backend.poison = -1.0
    randomness = random.Random(7)
    for _ in range(20):
        held = hold(backend, engine)
        jobs = []
        for number in range(12):
            values = [100.0 * number + i for i in range(randomness.randint(1, 9))]
            if randomness.random() < 0.3:
                values[randomness.randrange(len(values))] = -1.0
            jobs.append((values, engine.submit(forward(column(*values)), randomness.choice(list(Lane)))))
        time.sleep(0.01)
        backend.gate.set()
        for values, job in jobs:
            if -1.0 in values:
                with pytest.raises(DeviceError):
                    job.result(10)
            else:
                np.testing.assert_array_equal(job.result(10).value, 2 * column(*values))
        held.result(10)


@pytest.mark.parametrize("lane", Lane)
def test_a_cancelled_job_runs_no_further_and_its_neighbours_do(backend, start, recorder, lane):
    engine = start(backend, observer=recorder)
    job = engine.submit(endless(), lane)
    for _ in range(3):
        assert backend.entered.acquire(timeout=10)
    neighbour = engine.submit(forward(column(4)), lane)
    assert job.cancel()
    assert neighbour.result(10).value[0, 0] == 8
    with pytest.raises(CancelledError):
        job.result(1)
    launches = len(backend.launches)
    engine.submit(forward(column(5)), lane).result(10)
    assert len(backend.launches) <= launches + 2
    assert recorder.outcomes(3) == {(lane, JobOutcome.CANCELLED): 1, (lane, JobOutcome.DONE): 2}


@pytest.mark.parametrize("lane", [Lane.EXPLAIN, Lane.PREDICT])
def test_a_computation_that_fails_to_close_disturbs_nobody(backend, start, capsys, lane):
    closed = threading.Event()

    def stubborn():
        try:
            yield from endless()
        finally:
            closed.set()
            raise ZeroDivisionError

    engine = start(backend)
    job = engine.submit(stubborn(), lane)
    assert backend.entered.acquire(timeout=10)
    job.cancel()
    assert engine.submit(forward(column(2)), lane).result(10).value[0, 0] == 4
    assert closed.wait(10)


def test_an_observer_that_fails_disturbs_nobody(backend, start, capsys):
    class Failing:
        def batch_ran(self, *told):
            raise KeyError("metric")

        ended = batch_ran

    engine = start(backend, observer=Failing())
    for lane in Lane:
        assert engine.submit(forward(column(2)), lane).result(10).value[0, 0] == 4
    assert engine.close(10)
    assert "KeyError" in capsys.readouterr().out


def test_a_backend_that_cannot_be_made_says_so():
    def make():
        raise ConfigError("no such device", field="model.device")

    lost = []
    engine = Engine(make, on_lost=lost.append)
    with pytest.raises(ConfigError, match="no such device"):
        engine.start(lambda _: [Kind("forward")]).result(10)
    assert not engine.alive
    assert engine.close(10)
    assert not lost


@pytest.mark.parametrize("lane", Lane)
def test_jobs_submitted_before_a_failed_start_fail_too(lane):
    allow = threading.Event()

    def make():
        assert allow.wait(10)
        raise ConfigError("no such device", field="model.device")

    engine = Engine(make)
    ready = engine.start(lambda _: [Kind("forward")])
    early = engine.submit(forward(column(1)), lane)
    allow.set()
    with pytest.raises(DeviceLostError):
        early.result(10)
    with pytest.raises(ConfigError):
        ready.result(10)


@pytest.mark.parametrize("lane", Lane)
def test_jobs_submitted_before_it_is_ready_run_when_it_is(backend, lane):
    allow = threading.Event()
    engine = Engine(lambda: allow.wait(10) and backend)
    ready = engine.start(lambda _: [Kind("forward")])
    early = engine.submit(forward(column(1)), lane)
    allow.set()
    assert ready.result(10) == {}
    assert early.result(10).value[0, 0] == 2
    assert engine.close(10)


@pytest.fixture
def settles_at():
    """Says whether all jobs and their work are freed, but for a few: the threads' own variables may name the last."""

    def alive():
        return sum(type(each) in (Job, Forward) for each in gc.get_objects())

    def settles_at(few):
        patience = time.monotonic() + 2
        while alive() > before + few and time.monotonic() < patience:
            time.sleep(0.01)
        return alive() <= before + few

    gc.collect()
    before = alive()
    gc.disable()
    yield settles_at
    gc.enable()


def test_nothing_of_a_job_outlives_it(backend, start, settles_at):
    """The cyclic garbage collector comes seldom where there are many objects: inputs must be freed without it."""

    def improving():
        for number in range(3):
            yield Forward(column(number))
            yield Partial(lambda number=number: number)

    engine = start(backend)
    for i in range(20):
        later = time.monotonic() + 3600
        engine.submit(forward(column(i)), Lane.PREDICT, deadline=later).result(10)
        engine.submit(improving(), Lane.EXPLAIN, deadline=later, budget_end=later).result(10)
        for lane in Lane:
            engine.submit(endless(), lane, deadline=later, budget_end=later).cancel()
    engine.submit(forward(column(0)), Lane.EXPLAIN).result(10)
    engine.submit(forward(column(0)), Lane.PREDICT).result(10)
    assert settles_at(4)


@pytest.mark.parametrize("lane", Lane)
def test_nothing_of_a_job_that_fails_outlives_it(backend, start, settles_at, lane):
    """Nor does its error: the frames of its traceback would keep it."""

    def steps(value):
        inputs = column(value)
        yield Forward(inputs)
        raise ZeroDivisionError

    backend.poison = 13.0
    engine = start(backend)
    for _ in range(20):
        for value, error in ((1.0, ZeroDivisionError), (13.0, DeviceError)):
            assert isinstance(engine.submit(steps(value), lane).exception(10), error)
    engine.submit(forward(column(0)), Lane.EXPLAIN).result(10)
    engine.submit(forward(column(0)), Lane.PREDICT).result(10)
    assert settles_at(4)


@pytest.mark.parametrize("lane", Lane)
def test_a_flood_of_cancelled_jobs_costs_nothing(backend, start, hold, lane):
    engine = start(backend)
    held = hold(backend, engine)
    flood = [engine.submit(forward(column(i)), lane) for i in range(5_000)]
    assert all(job.cancel() for job in flood)
    last = engine.submit(forward(column(3)), lane)
    backend.gate.set()
    assert last.result(10).value[0, 0] == 6
    held.result(10)
    assert len(backend.launches) <= 3


# ------------------------------------------------------------------------------------ predictions do not wait


def slowest_prediction(engine, count):
    slowest = 0.0
    for i in range(count):
        began = time.monotonic()
        assert engine.submit(forward(column(i)), Lane.PREDICT).result(10).value[0, 0] == 2 * i
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.005)
    return slowest


@pytest.mark.parametrize("lane", [Lane.EXPLAIN, Lane.EVALUATE])
def test_a_slow_step_of_an_explanation_keeps_no_prediction_waiting(backend, start, lane):
    engine = start(backend)
    slept = []

    def slow():
        for _ in range(3):
            time.sleep(0.3)
            slept.append(1)
            yield Forward(column(1))
            yield Partial(lambda: time.sleep(0.3))

    explanations = [engine.submit(slow(), lane, budget_end=time.monotonic() + 60) for _ in range(2)]
    assert slowest_prediction(engine, 100) < 0.15
    assert slept
    for explanation in explanations:
        explanation.cancel()


def test_a_prediction_does_not_wait_for_explanations_to_begin(backend, start, hold):
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
    assert predicted.result(10).value < 50
    wait(explanations, 30)
    assert begun == list(range(100))
    held.result(10)


def test_endless_explanations_keep_a_prediction_waiting_for_a_launch_at_most(backend, start):
    run, order = backend.run, []

    def slow_run(kind, rows):
        time.sleep(0.02)
        order.append(rows[0][0, 0])
        return run(kind, rows)

    backend.run = slow_run
    engine = start(backend)

    def flood():
        while True:
            yield Forward(column(*[-1.0] * 50))

    explanations = [engine.submit(flood(), Lane.EXPLAIN) for _ in range(4)]
    for i in range(1, 30):
        before = len(order)
        engine.submit(forward(column(i)), Lane.PREDICT).result(10)
        # One in flight, and one more if it had begun when the prediction was submitted or is owed to explanations.
        assert order.index(i) - before <= 2
    # On a busy machine the thread that steps them comes late; a tenth of the time is theirs all the same.
    assert order.count(-1.0) >= 2
    for explanation in explanations:
        explanation.cancel()


def test_a_prediction_waits_for_company_as_long_as_it_is_told_to(backend, start, recorder, allowance):
    engine = start(backend, observer=recorder, policy=Policy(batch_delay_seconds=0.5))
    began = time.monotonic()
    wait([engine.submit(forward(column(i)), Lane.PREDICT) for i in range(3)], 10)
    assert 0.5 <= time.monotonic() - began < 0.5 + allowance(0.5)
    assert [record.row_count for record in recorder.launches] == [3]


def test_a_prediction_waits_no_longer_than_until_a_batch_is_full(backend, start, recorder):
    engine = start(backend, observer=recorder, policy=Policy(batch_delay_seconds=60.0))
    jobs = [engine.submit(forward(column(i)), Lane.PREDICT) for i in range(4)]
    assert not wait(jobs, 20).not_done
    assert [record.row_count for record in recorder.launches] == [4]


# ------------------------------------------------------------------------------------ races


def test_every_race_of_completion_cancelling_expiring_and_budgets_has_one_winner(backend, start, recorder, race):
    engine = start(backend, observer=recorder)
    expected = Counter()
    told = threading.Semaphore(0)
    count = 4000
    seed = random.randrange(2**32)
    print("seed", seed)

    def improving(passes):
        for number in range(passes):
            yield Forward(column(number))
            yield Partial(lambda number=number: number)

    def one(randomness):
        lane = randomness.choice(list(Lane))
        now = time.monotonic()
        limits = {
            name: now + randomness.uniform(0, 0.003) for name in ("deadline", "budget_end") if randomness.random() < 0.4
        }
        job = engine.submit(improving(randomness.randint(0, 4)), lane, **limits)
        job.add_done_callback(lambda _: told.release())
        cancelled = False
        if randomness.random() < 0.5:
            time.sleep(randomness.uniform(0, 0.001))
            cancelled = job.cancel()
        return job, cancelled, limits

    def many(seed):
        randomness = random.Random(seed)
        jobs.extend(one(randomness) for _ in range(count // 4))

    jobs = []
    race(partial(many, seed + i) for i in range(4))
    assert all(told.acquire(timeout=10) for _ in range(count))
    assert not told.acquire(timeout=0.05)
    for job, cancelled, limits in jobs:
        expected[job.lane, job.outcome] += 1
        assert cancelled == (job.outcome is JobOutcome.CANCELLED) == job.cancelled()
        error = None if cancelled else job.exception(0)
        assert (job.outcome is JobOutcome.EXPIRED) == isinstance(error, ExpiredError)
        assert error is None or isinstance(error, (ExpiredError, BudgetSpentError))
        assert job.outcome is not JobOutcome.EXPIRED or "deadline" in limits
        assert job.outcome is not JobOutcome.TRUNCATED or "budget_end" in limits
    assert recorder.outcomes(count) == expected
    assert sum(expected.values()) == count
    assert len({outcome for _, outcome in expected}) == 4
    assert [engine.waiting(lane) for lane in Lane] == [0, 0, 0]
