"""What explanations take in practice over what was measured at start, worked out by hand."""

import math

import pytest

from xai_sidecar.engine.costs import Slowdown, row_seconds


def run(slowdown, label, count, taken, measured=0.1, now=0.0, share=1.0, owner="a"):
    """Batches one after the other of one explanation; returns when the last ended."""
    slowdown.began(owner, now)
    for _ in range(count):
        now += taken
        slowdown.ran(label, measured, now, share)
    slowdown.ended(owner, label, now, share)
    return now


def test_before_anything_has_run_it_is_as_measured():
    assert Slowdown().ratio("rise", 5.0) == Slowdown().usual("rise") == 1


def test_a_single_trial_says_what_to_expect():
    """Three batches that took 0.15 s where 0.1 s were measured, and 0.03 s between the last one and the end."""
    slowdown = Slowdown()
    slowdown.began("a", 7.0)
    for end in (7.15, 7.3, 7.45):
        slowdown.ran("rise", 0.1, end, 1.0)
    slowdown.ended("a", "rise", 7.48, 1.0)
    assert slowdown.usual("rise") == pytest.approx(0.48 / 0.3, rel=0.01)
    assert slowdown.ratio("rise", 7.48) == pytest.approx(1.6, rel=0.01)
    assert slowdown.ratio("rise", 1e6) == pytest.approx(1.6, rel=0.01), "and for as long as there is nothing else"
    assert slowdown.ratio("occlusion", 8.0) == 1


def test_it_follows_what_runs_now_and_falls_back_to_what_is_usual():
    slowdown = Slowdown(recent_seconds=10)
    now = run(slowdown, "rise", 3000, 0.1)  # five minutes as measured
    now = run(slowdown, "rise", 100, 0.3, now=now)  # and half a minute at a third of the speed
    assert 2.3 < slowdown.ratio("rise", now) < 3
    assert slowdown.usual("rise") < 1.5
    apart = slowdown.ratio("rise", now) - slowdown.usual("rise")
    for later, left in ((10, 0.85), (30, 0.4), (100, 0.01)):
        assert slowdown.ratio("rise", now + later) - slowdown.usual("rise") < left * apart


def test_the_recent_average_is_weighted_by_time():
    """Of 10 s at twice the time, 1 - 1/e are left after 10 s more as measured, besides the weight of what is usual."""
    slowdown = Slowdown(recent_seconds=10, long_seconds=1e9)
    now = run(slowdown, "rise", 1000, 0.02, 0.01)
    now = run(slowdown, "rise", 1000, 0.01, 0.01, now=now)
    usual = 30 / 20
    twice = math.exp(-1) * 10 * (1 - math.exp(-2))
    once = 10 * (1 - math.exp(-1))
    expected = (twice + once + usual) / (twice / 2 + once + 1)
    assert slowdown.ratio("rise", now) == pytest.approx(expected, rel=0.01)


def test_several_at_a_time_share_the_time():
    """Two explanations whose batches alternate: each batch took what passed since the other's."""
    slowdown = Slowdown()
    for owner in "ab":
        slowdown.began(owner, 1.0)
    for count in range(1, 11):
        slowdown.ran("rise", 0.1, 1 + 0.12 * count, 1.0)
    slowdown.ended("b", "rise", 9.0, 1.0)  # the other still runs: this is no pause of the device's
    assert slowdown.usual("rise") == pytest.approx(1.2)


def test_what_ran_while_nobody_explained_does_not_count():
    slowdown = Slowdown()
    now = run(slowdown, "rise", 10, 0.1)
    run(slowdown, "rise", 10, 0.1, now=now + 1000)
    assert slowdown.usual("rise") == pytest.approx(1)


def test_what_predictions_took_does_not_count():
    """They leave a quarter, so that batches come four times as seldom."""
    slowdown = Slowdown()
    run(slowdown, "rise", 10, 0.4, share=0.25)
    assert slowdown.usual("rise") == pytest.approx(1)


def test_one_that_hung_does_not_count_for_ever():
    slowdown = Slowdown()
    now = run(slowdown, "rise", 100, 0.1)
    now = run(slowdown, "rise", 1, 60.0, now=now)
    assert slowdown.ratio("rise", now) < 3
    now = run(slowdown, "rise", 50, 0.1, now=now)
    assert slowdown.ratio("rise", now) < 1.4


def test_it_may_be_quicker_than_measured():
    """Two launches in flight: batches end twice as often as each takes."""
    slowdown = Slowdown()
    now = run(slowdown, "rise", 1000, 0.05)
    assert slowdown.ratio("rise", now) == pytest.approx(0.5)


def test_what_never_ran_ends_without_a_trace():
    slowdown = Slowdown()
    slowdown.ended("a", "rise", 5.0, 1.0)
    assert slowdown.usual("rise") == 1


@pytest.mark.parametrize(("longest", "seconds"), [(1.0, 0.0015), (0.01, 0.002), (0.001, 0.003)])
def test_a_row_at_the_best_size_that_a_slice_allows(longest, seconds):
    assert row_seconds({1: 0.003, 4: 0.008, 8: 0.012}, longest) == pytest.approx(seconds)


def test_what_another_process_has_found_is_expected_until_more_has_run_here():
    slowdown = Slowdown()
    slowdown.expect("rise", 2.0, 5.0)
    assert slowdown.usual("rise") == slowdown.ratio("rise", 5.0) == slowdown.ratio("rise", 500.0) == 2
    slowdown.began("job", 5.0)
    slowdown.ran("rise", 1.8, 6.8, 1.0)  # as measured at start, and nine times what is expected
    assert 1 < slowdown.usual("rise") < 1.2
