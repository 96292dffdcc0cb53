"""A stream of values: when windows are compared, and how often that goes wrong however often one looks."""

import numpy as np
import pytest

from xai_sidecar.evaluator.drift.stream import Stream
from xai_sidecar.evaluator.drift.two_sample import least_steps

SIZE, LEVEL = 20, 0.1


def test_both_windows_have_to_be_full():
    stream = Stream(4, 0.5)
    for value in (1, 2, 3, 4, 5, 6, 7):
        stream.put(value)
        assert stream.comparison is None
    stream.put(8)
    found = stream.comparison
    assert (found.reference, found.current, found.distance) == (2.5, 6.5, 1)
    assert found.allowed == least_steps(4, 0.5 / 2) / 4
    assert found.drifted


def test_the_reference_stays_and_the_current_window_moves():
    stream = Stream(4, 0.5)
    for value in range(20):
        stream.put(value)
    assert (stream.comparison.reference, stream.comparison.current) == (1.5, 17.5)
    assert stream.comparison.allowed == least_steps(4, 0.5 / (13 * 14)) / 4 > 1  # of four values nothing is so rare
    assert not stream.comparison.drifted


def test_it_looks_four_times_a_window():
    stream, found = Stream(SIZE, LEVEL), []
    for value in np.random.default_rng(0).standard_normal(4 * SIZE):
        stream.put(value)
        if stream.comparison is not None and (not found or found[-1] is not stream.comparison):
            found.append(stream.comparison)
    assert len(found) == 1 + 2 * 4
    assert [each.allowed for each in found] == sorted(each.allowed for each in found)


def ever(values, spend):
    """Whether drift is ever found among values, with the level shared among all looks or whole for each."""
    stream, whole = Stream(SIZE, LEVEL), least_steps(SIZE, LEVEL) / SIZE
    for value in values:
        stream.put(value)
        found = stream.comparison
        if found is not None and (found.drifted if spend else found.distance >= whole):
            return True
    return False


def test_false_alarms_are_bounded_however_often_it_looks():
    """Of 400 streams that never change, with 100 looks at each, no more than 10 % ever alarm.

    Most would with 10 % for each look.
    """
    streams = np.random.default_rng(0).exponential(size=(400, 27 * SIZE))
    alarms = sum(ever(each, True) for each in streams)
    assert 0 < alarms <= 400 * LEVEL
    assert sum(ever(each, False) for each in streams[:50]) > 25


@pytest.mark.parametrize(
    "change", [lambda x: x + 2, lambda x: 4 * x, lambda x: np.zeros_like(x)], ids=["mean", "spread", "one"]
)
def test_changes_are_found(change):
    generator = np.random.default_rng(1)
    before, after = generator.standard_normal(10 * 100), change(generator.standard_normal(300))
    stream = Stream(100, 1e-4)
    for value in before:
        stream.put(value)
    assert not stream.comparison.drifted
    for value in after:
        stream.put(value)
    assert stream.comparison.drifted


def test_a_server_that_runs_for_long_takes_no_more_memory():
    stream = Stream(20, 0.1)
    sizes = []
    for value in range(200):
        stream.put(value % 7)
        sizes.append(sum(each.buffer_info()[1] for each in (stream._reference, stream._current)))
    assert sizes[39:] == [40] * 161
