"""Scores of late."""

import math
import statistics
import sys
import threading
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measuring import summary

from xai_sidecar.evaluator.records import SampleKey
from xai_sidecar.evaluator.weighted import ScoreStatistics
from xai_sidecar.evaluator.windows import Window, Windows
from xai_sidecar.metrics.base import Score


def key(number):
    return SampleKey(f"r{number}", 0)


def filled(values, max_samples=100, max_seconds=1000.0):
    """A window with scores of samples at 0, 1, 2, ... of classes 0, 1, 0, 1, ..., measured ten seconds later."""
    window = Window(max_samples, max_seconds)
    for number, value in enumerate(values):
        window.put(key(number), number, value, number % 2, number + 10)
    return window


def test_on_paper():
    # Mean 3; squared deviations 4 + 0 + 1 + 1 + 4 = 10, over 4; over 5 again.
    estimate = filled([1.0, 3, 2, 4, 5]).statistics(now=5)
    assert estimate.mean == 3
    assert estimate.standard_error == pytest.approx(math.sqrt(0.5))
    assert (estimate.count, estimate.updated) == (5, 14)


def test_of_nothing_and_of_one():
    assert filled([]).statistics(0) is None
    assert filled([0.25]).statistics(0) == ScoreStatistics(0.25, None, 1, 10)


def test_by_class():
    window = filled([1.0, 10, 3, 20, 8])
    assert window.statistics(5, target=0).mean == 4
    assert window.statistics(5, target=1) == ScoreStatistics(15, 5, 2, 13)
    assert window.statistics(5, target=2) is None
    assert window.statistics(5, targets_excluded={0}) == window.statistics(5, target=1)
    assert window.statistics(5, targets_excluded=[0, 1]) is None
    assert window.statistics(5, targets_excluded=[7]) == window.statistics(5)
    assert window.statistics(5, target=1, targets_excluded=[1]) is None


def test_class_none_is_not_asked_for_by_none():
    window = Window(10, 10)
    window.put(key(0), 0, 1.0)
    window.put(key(1), 0, 0.0, target=3)
    assert window.statistics(0).mean == 0.5
    assert window.statistics(0, target=3).mean == 0
    assert window.statistics(0, targets_excluded=[3]).mean == 1


def test_the_newest_by_when_they_were_predicted():
    window = Window(2, 100)
    window.put(key(0), 50, 0.5, 0, 60)
    window.put(key(1), 30, 0.3, 0, 61)
    window.put(key(2), 40, 0.4, 0, 62)
    assert window.statistics(60) == ScoreStatistics(pytest.approx(0.45), pytest.approx(0.05), 2, 62)
    window.put(key(3), 20, 0.2, 0, 70)
    assert window.statistics(60).count == 2
    assert window.statistics(60).updated == 62


def test_of_one_request_the_later_pictures_stay():
    window = Window(2, 100)
    for number in (1, 0, 2):
        window.put(SampleKey("r", number), 5.0, float(number))
    assert window.statistics(5).mean == 1.5


def test_a_later_score_replaces_the_former():
    window = filled([1.0, 3])
    window.put(key(0), 0, 5.0, 1, 99)
    assert window.statistics(5) == ScoreStatistics(4, 1, 2, 99)
    assert window.statistics(5, target=0) is None
    window.put(key(0), 70, 5.0, 1, 99)
    assert window.statistics(5).count == 2


def test_the_old_go_by_the_clock():
    window = filled([1.0, 3, 5], max_seconds=10)
    assert window.statistics(10).mean == 3
    assert window.statistics(10.5).mean == 4
    assert window.statistics(10.5, target=0).mean == 5
    assert window.statistics(12).mean == 5
    assert window.statistics(12.5) is None
    assert window.statistics(10).mean == 3


def test_estimates_are_kept_until_something_changes():
    window = filled([1.0, 3, 5], max_seconds=10)
    assert window.statistics(3, target=0) is window.statistics(10, target=0)
    before = window.statistics(3)
    assert window.statistics(10) is before
    window.put(key(9), 2.5, 3.0)
    assert window.statistics(10).count == 4
    window.remove(key(9))
    assert window.statistics(10) == before


def test_what_is_removed_is_gone():
    window = filled([1.0, 3, 5])
    window.remove(key(1))
    window.remove(key(1))
    window.remove(key(77))
    assert window.statistics(5) == ScoreStatistics(3, 2, 2, 12)


KEYS = st.integers(0, 7)
PUT = st.tuples(KEYS, st.integers(0, 30), st.floats(-1, 1), st.integers(0, 2))


@given(st.lists(st.tuples(PUT | KEYS, st.integers(0, 60)), max_size=40), st.integers(1, 6), st.integers(0, 40))
def test_against_a_plain_list(steps, max_samples, max_seconds):
    window, rows = Window(max_samples, max_seconds), []
    for measured, (step, now) in enumerate(steps):
        number = step if isinstance(step, int) else step[0]
        rows = [row for row in rows if row[1] != number]
        if isinstance(step, int):
            window.remove(key(number))
        else:
            _, time, value, target = step
            window.put(key(number), time, value, target, measured)
            rows = sorted([*rows, (time, number, value, target, measured)])[-max_samples:]
        for target, excluded in [(None, ()), (0, ()), (2, ()), (None, {0}), (None, (1, 2))]:
            chosen = [row for row in rows if now - row[0] <= max_seconds and row[3] not in excluded]
            chosen = [row for row in chosen if target is None or row[3] == target]
            values = [row[2] for row in chosen]
            estimate = window.statistics(now, target, excluded)
            if not values:
                assert estimate is None
                continue
            assert estimate.mean == pytest.approx(statistics.fmean(values), abs=1e-12)
            if len(values) == 1:
                assert estimate.standard_error is None
            else:
                expected = statistics.stdev(values) / math.sqrt(len(values))
                assert estimate.standard_error == pytest.approx(expected, abs=1e-12)
            assert (estimate.count, estimate.updated) == (len(values), max(row[4] for row in chosen))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40))
def test_it_says_what_a_summary_says(values):
    summed = summary(Score(value) for value in values)
    estimate = filled(values).statistics(50)
    # The window rounds once, NumPy at every step.
    assert estimate.mean == pytest.approx(summed.mean, rel=1e-12, abs=1e-15)
    if len(values) > 1:
        assert estimate.standard_error == pytest.approx(summed.standard_error, rel=1e-9, abs=1e-9)
    assert estimate.count == summed.count


def exactly(values):
    """Mean and standard error in fractions, rounded once."""
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    if len(exact) == 1:
        return float(mean), None
    variance = sum((value - mean) ** 2 for value in exact) / (len(exact) - 1) / len(exact)
    with localcontext(prec=60, Emax=99_999, Emin=-99_999):
        return float(mean), float((Decimal(variance.numerator) / Decimal(variance.denominator)).sqrt())


ANY = st.floats(allow_nan=False, allow_infinity=False)
EXTREME = st.sampled_from([1.7e308, -1.7e308, 5e-324, 1e-310, 0.0, -0.0, 1.0, 1.0 + 2**-52, 1e16, -1e16])


@given(st.lists(st.tuples(st.integers(0, 5), ANY | EXTREME, st.booleans()), min_size=1, max_size=40), st.integers(1, 5))
def test_no_rounding_adds_up_whatever_comes_and_goes(steps, max_samples):
    window, rows = Window(max_samples, math.inf), {}
    for time, (number, value, goes) in enumerate(steps):
        rows.pop(number, None)
        window.remove(key(number))
        if not goes:
            window.put(key(number), time, value, number % 2, time)
            rows[number] = value
            if len(rows) > max_samples:
                rows.pop(next(iter(rows)))
        for target in (None, 0, 1):
            values = [each for known, each in rows.items() if target is None or known % 2 == target]
            estimate = window.statistics(0, target)
            if not values:
                assert estimate is None
                continue
            mean, error = exactly(values)
            assert estimate.mean == mean
            assert estimate.standard_error == (error if error is None else pytest.approx(error, rel=1e-15))


def test_after_many_have_come_and_gone_all_is_as_if_they_never_had():
    window = Window(3, 1e9)
    values = [1e300, 1e-300, 0.1, -1e300, 0.7] * 400
    for number, value in enumerate([*values, 0.25, 0.5, 0.75]):
        window.put(key(number), number, value, number % 10, number)
    assert window.statistics(0).mean == 0.5
    assert window.statistics(0).standard_error == pytest.approx(0.25 / math.sqrt(3), rel=1e-15)
    assert len(window._by_target) == 3, "classes that have gone are kept"


def test_an_estimate_takes_the_same_time_however_many_there_are():
    def steps(count):
        """What an estimate takes after a change, in calls of Python."""
        window = Window(count, 1e9)
        for number in range(count):
            window.put(key(number), number, number / count, number % 7, number)
        calls = []
        sys.setprofile(lambda frame, event, argument: calls.append(event))
        try:
            window.put(key(0), 0, 0.5, 0, 0)
            window.statistics(count)
            window.statistics(count, 3)
            window.statistics(count, None, [1, 2])
        finally:
            sys.setprofile(None)
        return len(calls)

    # Finding a place takes a step more for each doubling.
    assert steps(4096) < steps(64) + 200


def test_a_window_for_each_explainer_and_metric():
    windows = Windows(10, 100)
    windows.put("rise", "robustness", key(0), 0, 0.5, 3, 1)
    windows.put("rise", "faithfulness/naive", key(0), 0, 0.25, 3, 2)
    windows.put("gradcam", "robustness", key(0), 0, 1.0, 3, 3)
    windows.put("gradcam", "robustness", key(1), 1, 0.0, 4, 4)
    assert windows.statistics("rise", "robustness", 5) == ScoreStatistics(0.5, None, 1, 1)
    assert windows.statistics("rise", "faithfulness/naive", 5).mean == 0.25
    assert windows.statistics("gradcam", "robustness", 5).count == 2
    assert windows.statistics("gradcam", "robustness", 5, target=4).mean == 0
    assert windows.statistics("gradcam", "robustness", 5, targets_excluded=[4]).mean == 1
    assert windows.statistics("gradcam", "robustness", 101) == ScoreStatistics(0, None, 1, 4)
    assert windows.statistics("occlusion", "robustness", 5) is None
    assert windows.statistics("gradcam", "faithfulness/naive", 5) is None


def test_removing_by_metric_takes_all_explainers():
    windows = Windows(10, 100)
    for explainer in ("rise", "gradcam"):
        for metric in ("robustness", "localization/iosr", "localization/pointing_game"):
            for number in (0, 1):
                windows.put(explainer, metric, key(number), 0, 1.0, 0, 0)
    windows.remove(key(0), ["localization/iosr", "localization/pointing_game", "nothing"])
    for explainer in ("rise", "gradcam"):
        counts = [
            windows.statistics(explainer, metric, 0).count
            for metric in ("robustness", "localization/iosr", "localization/pointing_game")
        ]
        assert counts == [2, 1, 1]


def test_threads_may_share_them():
    windows, wrong = Windows(60, 1e9), []

    def write(worker):
        for number in range(300):
            windows.put("rise", "robustness", key(1000 * worker + number % 20), number, 0.5, 0, 0)
            windows.remove(key(1000 * worker + (number + 7) % 20), {"robustness"})

    def read():
        for _ in range(300):
            estimate = windows.statistics("rise", "robustness", 0)
            if estimate is not None and (estimate.mean != 0.5 or estimate.count > 60):
                wrong.append(estimate)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    threads += [threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    # Each writer's last seven removals took seven of its twenty samples; the others have been put in again since.
    assert windows.statistics("rise", "robustness", 0).count == 3 * 13
