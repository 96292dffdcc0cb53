"""When evaluation may have the device: shares and rests worked out by hand."""

import pytest

from xai_sidecar.engine.throttle import LONG_SHARE, QUIET_SECONDS, IdleThrottle


@pytest.fixture
def throttle():
    return IdleThrottle(share=0.2, slice_seconds=0.005, quiet_slice_seconds=0.02)


def test_at_first_nobody_is_expected(throttle):
    assert throttle.longest(0.0) == 0.02
    assert throttle.begin(1.0) <= 0.0


def test_slices(throttle):
    throttle.others(100.0)
    assert throttle.longest(100.0) == 0.005
    assert throttle.longest(99.0 + QUIET_SECONDS) == 0.005
    assert throttle.longest(100.0 + QUIET_SECONDS) == 0.02


def test_others_may_be_told_of_late(throttle):
    throttle.others(100.0)
    throttle.others(99.0)
    assert throttle.longest(99.5 + QUIET_SECONDS) == 0.005


def test_a_launch_earns_its_rest(throttle):
    throttle.others(100.0)
    throttle.ran(100.0, 0.004)
    assert throttle.begin(0.004) == pytest.approx(100.02)


def test_a_long_launch_makes_the_next_long_one_wait_and_the_short_ones_hardly(throttle):
    throttle.others(100.0)
    throttle.ran(100.0, 0.011)
    assert throttle.begin(0.004) == throttle.begin(0.01) == pytest.approx(100.055)
    assert throttle.begin(0.011) == pytest.approx(100.0 + 0.011 / LONG_SHARE)


def test_a_long_launch_need_not_wait_once_nobody_comes(throttle):
    throttle.others(100.0)
    throttle.ran(100.0, 0.1)
    assert throttle.begin(0.1) == 100.0 + QUIET_SECONDS < 100.0 + 0.1 / LONG_SHARE
    throttle.others(103.0)
    assert throttle.begin(0.1) == 103.0 + QUIET_SECONDS


def test_what_takes_no_longer_than_two_predictions_is_not_long(throttle):
    """A slow machine: predictions of 20 ms, where the slice is 5 ms."""
    throttle.others(100.0)
    throttle.predicted(0.02)
    throttle.ran(100.0, 0.04)
    assert throttle.begin(0.04) == pytest.approx(100.2)
    throttle.ran(101.0, 0.041)
    assert throttle.begin(0.04) == pytest.approx(101.205)
    assert throttle.begin(0.041) == 100.0 + QUIET_SECONDS


def test_nothing_begins_before_a_prediction_that_was_announced(throttle):
    throttle.announced(100.0)
    assert throttle.longest(100.0) == 0.005
    assert throttle.begin(0.004) == throttle.begin(1.0) == pytest.approx(100.01)
    throttle.arrived()
    assert throttle.begin(0.004) < 100.0
    throttle.announced(101.0)  # and if it never comes, a moment is all that it costs
    assert throttle.begin(0.004) == pytest.approx(101.01)


def test_alone_a_long_launch_keeps_to_the_share_only(throttle):
    throttle.ran(100.0, 0.1)
    assert throttle.begin(0.1) == pytest.approx(100.5)


def test_a_stall_is_not_paid_for(throttle):
    throttle.ran(100.0, 60.0)
    assert throttle.begin(0.004) == pytest.approx(160.0 + 4.0)


def test_the_whole_device():
    throttle = IdleThrottle(share=1.0, slice_seconds=0.005, quiet_slice_seconds=0.02)
    throttle.ran(100.0, 0.004)
    assert throttle.begin(0.004) == pytest.approx(100.004)
