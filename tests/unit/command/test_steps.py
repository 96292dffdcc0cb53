"""While a start takes long there are lines all the same."""

import queue

import pytest

from xai_sidecar.command.steps import StepReports


def test_a_step_that_goes_on_is_reported_again_and_after_the_end_nothing_is():
    lines = queue.SimpleQueue()
    with StepReports(lines.put, quiet_seconds=0.01) as steps:
        steps("compiling")
        assert lines.get(timeout=10) == "compiling"
        assert all(lines.get(timeout=10).startswith("compiling, for ") for _ in range(2))
        steps("checking")
        while lines.get(timeout=10) != "checking":
            pass
        assert lines.get(timeout=10).startswith("checking, for ")  # and not the step before
    steps("too late")
    steps._thread.join(10)
    assert not steps._thread.is_alive()
    assert "too late" not in [lines.get() for _ in range(lines.qsize())]


def test_steps_that_follow_each_other_quickly_are_reported_once():
    lines = []
    with StepReports(lines.append, quiet_seconds=60) as steps:
        for step in "abc":
            steps(step)
    assert lines == ["a", "b", "c"]


def test_a_start_that_fails_ends_them_too():
    lines = []
    steps = StepReports(lines.append, quiet_seconds=60)
    with pytest.raises(ValueError, match="no"), steps:
        raise ValueError("no")
    steps._thread.join(10)
    assert not steps._thread.is_alive()
