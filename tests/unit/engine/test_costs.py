"""What launches cost now: what was measured at start, times how much slower the machine has been of late."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xai_sidecar.engine.batch import Lane, Task
from xai_sidecar.engine.costs import CostModel, Utilization
from xai_sidecar.engine.scheduler import Policy, Scheduler
from xai_sidecar.engine.work import Kind

FORWARD = Kind("forward")
GRADIENT = Kind("input_gradient")
MEASURED = {1: 0.002, 4: 0.006, 8: 0.01, 16: 0.018}


@pytest.fixture
def pace():
    return CostModel(lambda kind: MEASURED)


def factor(pace, kind=FORWARD):
    factors = {size: seconds / MEASURED[size] for size, seconds in pace.costs(kind).items()}
    assert factors.keys() == MEASURED.keys()
    assert max(factors.values()) == pytest.approx(min(factors.values()))
    return factors[1]


def test_at_first_it_is_what_was_measured(pace):
    assert pace.costs(FORWARD) == MEASURED


@pytest.mark.parametrize("slower", [0.3, 1.0, 2.0, 6.0])
def test_it_converges_to_what_launches_take(pace, slower):
    apart = abs(slower - 1)
    for _ in range(60):
        for size in (4, 16):
            pace.ran(FORWARD, size, slower * MEASURED[size])
            assert abs(factor(pace) - slower) <= apart + 1e-9
            apart = abs(factor(pace) - slower)
    assert factor(pace) == pytest.approx(slower, rel=0.001)


@given(st.lists(st.tuples(st.sampled_from([*MEASURED, 3]), st.floats(0, 1e6)), max_size=50))
def test_it_stays_within_bounds_whatever_launches_take(launches):
    pace = CostModel(lambda kind: MEASURED)
    for size, seconds in launches:
        before = factor(pace)
        pace.ran(FORWARD, size, seconds)
        assert 0.25 - 1e-9 <= factor(pace) <= 8.0 + 1e-9
        assert abs(factor(pace) - before) <= 0.8 + 1e-9


def test_one_launch_that_was_held_up_does_not_count_for_much(pace):
    pace.ran(FORWARD, 8, 100.0)
    assert factor(pace) == pytest.approx(1.7)
    for _ in range(30):
        pace.ran(FORWARD, 8, MEASURED[8])
    assert factor(pace) == pytest.approx(1.0, rel=0.05)


def test_a_size_that_was_not_measured_says_nothing(pace):
    pace.ran(FORWARD, 2, 100.0)
    assert pace.costs(FORWARD) == MEASURED
    pace = CostModel(lambda kind: {1: 0.0})
    pace.ran(FORWARD, 1, 1.0)
    assert pace.costs(FORWARD) == {1: 0.0}


def test_kinds_are_apart(pace):
    pace.ran(FORWARD, 8, 1.0)
    assert pace.costs(GRADIENT) == MEASURED
    pace.ran(GRADIENT, 8, 0.0)
    assert factor(pace) > 1 > factor(pace, GRADIENT)


@pytest.mark.parametrize(
    ("rows", "seconds"), [(1, 0.002), (2, 0.004), (4, 0.006), (9, 0.018), (16, 0.018), (32, 0.036)]
)
def test_what_rows_take_at_the_best_size(pace, rows, seconds):
    assert pace.seconds(FORWARD, rows) == pytest.approx(seconds)
    for _ in range(100):
        pace.ran(FORWARD, 1, 2 * MEASURED[1])
    assert pace.seconds(FORWARD, rows) == pytest.approx(2 * seconds, rel=0.001)


def test_a_machine_that_becomes_slow_gets_smaller_launches_until_it_recovers(pace):
    scheduler = Scheduler(pace.costs, Policy(slice_seconds=0.02))
    scheduler.add(Task("endless", Lane.EXPLAIN, FORWARD, 10**9))
    sizes = []
    for slower in [1.0] * 50 + [3.0] * 100 + [100.0] * 50 + [1.0] * 150:
        launch = scheduler.next()
        seconds = slower * MEASURED[launch.size]
        pace.ran(FORWARD, launch.size, seconds)
        scheduler.ran(launch, seconds)
        sizes.append(launch.size)
    assert set(sizes[:50]) == {16}
    assert set(sizes[75:150]) == {4}
    assert set(sizes[175:200]) == {1}
    assert set(sizes[-50:]) == {16}
    held_up = [size for size, slower in zip(sizes[50:150], [3.0] * 100, strict=True) if 3.0 * MEASURED[size] > 0.02]
    assert len(held_up) < 20


def test_how_busy_something_has_been():
    """A launch of 10 ms every 20 ms is half of the time; a second later, 1/e of that counts."""
    busy = Utilization()
    assert busy.share(100.0) == 0
    for step in range(500):
        busy.ran(100 + 0.02 * step, 0.01)
    assert busy.share(110.0) == pytest.approx(0.5, rel=0.03)
    assert busy.share(111.0) == pytest.approx(0.5 / math.e, rel=0.03)
    assert busy.share(140.0) < 1e-6
    busy.ran(200.0, 50.0)
    assert 0.99 < busy.share(200.0) <= 1
