"""A computation under way: stepping it, and who settles it."""

import threading
from concurrent.futures import CancelledError
from functools import partial

import numpy as np
import pytest

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.job import Completed, Job, JobOutcome
from xai_sidecar.engine.work import Forward, Partial, forward
from xai_sidecar.errors import BudgetSpentError, DeviceLostError, ExpiredError

FOREVER = float("inf")


def column(*values):
    return np.array(values, np.float32)[:, None]


def counting(closed=None, make=None):
    """Yields a partial result after each pass: how many there were."""
    count = 0
    try:
        while count < 100:
            yield Forward(column(count))
            count += 1
            yield Partial(make or (lambda count=count: count))
        return count
    finally:
        if closed is not None:
            closed.set()


def job_of(steps):
    return Job(steps, Lane.EXPLAIN, FOREVER)


def advance(job, passes):
    """Steps it that far, counting as the device would."""
    rows = None
    for _ in range(passes + 1):
        assert job.step(rows) is not None
        job.pass_count += 1
        rows = (column(0),)
    job.pass_count -= 1


def test_it_is_stepped_from_one_piece_of_work_to_the_next():
    def steps():
        first = yield Forward(column(1, 2))
        second = yield Forward(first + 1)
        return first, second

    job = job_of(steps())
    np.testing.assert_array_equal(job.step(None).rows[0], column(1, 2))
    np.testing.assert_array_equal(job.step((column(5, 6),)).rows[0], column(6, 7))
    assert not job.done()
    assert job.step((column(8, 9),)) is None
    np.testing.assert_array_equal(job.result(0).value, [column(5, 6), column(8, 9)])
    assert not job.result(0).cut_short
    assert job.outcome is JobOutcome.DONE


def test_a_piece_of_work_without_rows_fails_it():
    job = job_of(forward(np.zeros((0, 1), np.float32)))
    assert job.step(None) is None
    with pytest.raises(ValueError, match="no rows"):
        job.result(0)
    assert job.outcome is JobOutcome.FAILED


@pytest.mark.parametrize("asked", [None, 7, (column(1),)])
def test_what_is_no_work_fails_it(asked):
    def steps():
        yield asked

    job = job_of(steps())
    assert job.step(None) is None
    assert job.outcome is JobOutcome.FAILED


def test_peeking_tells_the_newest_partial_result():
    job = job_of(counting())
    assert job.peek() is None
    job.step(None)
    assert job.peek() is None
    for count in (1, 2, 3):
        job.step((column(0),))
        assert job.peek() == count
    job.cancel()
    assert job.peek() is None


def test_the_best_is_put_by_whenever_it_has_come_twice_as_far():
    made = []
    job = job_of(counting(make=lambda: made.append(job.pass_count) or job.pass_count))
    rows = None
    for passes in range(33):
        job.step(rows)
        rows = (column(0),)
        taken = job.keep_best()
        assert (taken is not None) == (passes in (1, 2, 4, 8, 16, 32))
        job.pass_count += 1
    assert made == [1, 2, 4, 8, 16, 32]
    job.cut()
    assert (job.result(0).value, job.result(0).pass_count, job.result(0).cut_short) == (32, 33, True)
    assert job.outcome is JobOutcome.TRUNCATED


def test_cut_before_there_is_anything():
    job = job_of(counting())
    job.step(None)
    job.finish()
    assert not job.done()
    job.cut()
    with pytest.raises(BudgetSpentError):
        job.result(0)
    assert job.outcome is JobOutcome.TRUNCATED


def test_finishing_takes_the_newest_and_not_what_was_put_by():
    job = job_of(counting())
    advance(job, 2)
    job.keep_best()
    job.step((column(0),))
    job.finish()
    assert (job.result(0).value, job.result(0).cut_short) == (3, True)


def test_letting_go_closes_the_computation_and_forgets_what_it_had():
    closed = threading.Event()
    job = job_of(counting(closed))
    advance(job, 3)
    job.keep_best()
    job.cancel()
    job.close()
    assert closed.is_set()
    assert job._best is job._partial is job._asked is None


def test_a_computation_that_will_not_close_is_only_logged(capsys):
    def stubborn():
        try:
            yield Forward(column(1))
        finally:
            raise ZeroDivisionError

    job = job_of(stubborn())
    job.step(None)
    job.close()
    assert "ZeroDivisionError" in capsys.readouterr().out


SETTLERS = {
    JobOutcome.DONE: lambda job: job.settle(Completed(1, 1, 1.0)),
    JobOutcome.TRUNCATED: lambda job: job.cut(),
    JobOutcome.FAILED: lambda job: job.fail(DeviceLostError("gone")),
    JobOutcome.EXPIRED: lambda job: job.expire(),
    JobOutcome.CANCELLED: lambda job: job.cancel(),
}


@pytest.mark.parametrize("first", SETTLERS)
@pytest.mark.parametrize("second", SETTLERS)
def test_who_comes_second_comes_too_late(first, second):
    job, ends = job_of(counting()), []
    job.add_done_callback(lambda job: ends.append(job.outcome))
    SETTLERS[first](job)
    SETTLERS[second](job)
    assert ends == [first]
    assert job.outcome is first


def test_races_have_one_winner(race):
    """All of them at once, on threads of their own, thousands of times."""
    rounds = 2000
    jobs = [job_of(counting()) for _ in range(rounds)]
    ends = [[] for _ in jobs]
    for job, told in zip(jobs, ends, strict=True):
        job.add_done_callback(lambda job, told=told: told.append(job.outcome))
    cancelled = [None] * rounds
    together = threading.Barrier(len(SETTLERS))

    def settle(outcome):
        for number, job in enumerate(jobs):
            together.wait(30)
            said = SETTLERS[outcome](job)
            if outcome is JobOutcome.CANCELLED:
                cancelled[number] = said

    race(partial(settle, outcome) for outcome in SETTLERS)
    for job, told, said in zip(jobs, ends, cancelled, strict=True):
        assert told == [job.outcome]
        assert said is job.cancelled()
        if said:
            with pytest.raises(CancelledError):
                job.result(0)
        elif job.outcome is JobOutcome.EXPIRED:
            assert isinstance(job.exception(0), ExpiredError)
    assert len({job.outcome for job in jobs}) > 1
