"""Waiting for jobs that are in progress."""

import threading
from concurrent.futures import Future

import pytest

from xai_sidecar.engine.awaited import Awaited


@pytest.fixture
def awaited():
    return Awaited()


def given_back(awaited, timeout=10.0):
    return [purpose for _, purpose in awaited.ended(timeout)]


def test_jobs_are_given_back_with_what_they_are_for_in_the_order_in_which_they_end(awaited):
    jobs = {name: Future() for name in "abcd"}
    for name, job in jobs.items():
        awaited.add(job, name)
    jobs["c"].set_result(1)
    jobs["a"].set_exception(ValueError())
    jobs["d"].cancel()
    assert given_back(awaited) == ["c", "a", "d"]
    assert len(awaited) == 1


def test_it_waits_until_a_job_ends(awaited):
    job = Future()
    awaited.add(job, "late")
    threading.Timer(0.05, job.set_result, [1]).start()
    assert given_back(awaited) == ["late"]
    assert not awaited


def test_a_job_that_had_ended_before_it_was_added_is_given_back(awaited):
    job = Future()
    job.set_result(1)
    awaited.add(job, "early")
    assert given_back(awaited) == ["early"]


def test_nothing_is_given_back_while_none_ends(awaited):
    awaited.add(Future(), "never")
    assert given_back(awaited, timeout=0.01) == []
    assert len(awaited) == 1


def test_what_was_not_taken_is_given_back_later(awaited):
    """As where what follows from one of them raises."""
    for name in "ab":
        job = Future()
        awaited.add(job, name)
        job.set_result(1)
    _, first = next(awaited.ended(10.0))
    assert first == "a"
    assert given_back(awaited) == ["b"]


def test_those_that_have_not_ended_are_cancelled(awaited):
    job = Future()
    awaited.add(job, "running")
    awaited.cancel()
    assert job.cancelled()
    assert given_back(awaited) == ["running"]
