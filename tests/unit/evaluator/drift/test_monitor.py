"""Taking maps without holding anybody up: spacing, a bounded queue, and what is counted."""

import threading

import numpy as np
import pytest

from xai_sidecar.config import DriftConfig
from xai_sidecar.evaluator.drift.monitor import DriftMonitor

SECONDS = 20


def picture(seed=0):
    return np.random.default_rng(seed).standard_normal((8, 8)).astype(np.float32)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def monitor(clock):
    """Two explainers, and a map of each every 10 s."""
    monitor = DriftMonitor(["a", "b"], {}, DriftConfig(window=20, spacing_seconds=10), clock)
    yield monitor
    monitor.close()


def test_a_map_of_an_explainer_and_a_source_counts_so_often_at_the_most(monitor, clock):
    assert monitor.offer("requests", 0, {"a": picture()})
    assert not monitor.offer("requests", 0, {"a": picture()})
    assert monitor.offer("samples", 0, {"a": picture()})
    assert monitor.offer("requests", 0, {"a": picture(), "b": picture()}), "b has not come yet"
    clock.now = 9.9
    assert not monitor.offer("requests", 0, {"a": picture(), "b": picture()})
    clock.now = 10
    assert monitor.offer("requests", 0, {"a": picture()})


@pytest.mark.parametrize("maps", [{}, {"control/random": picture()}])
def test_what_is_no_explainers_does_not_count(monitor, maps):
    assert not monitor.offer("requests", 0, maps)


def test_none_is_taken_where_it_is_switched_off(clock):
    monitor = DriftMonitor(["a"], {}, DriftConfig(enabled=False), clock)
    assert not monitor.offer("requests", 0, {"a": picture()})
    assert monitor._thread is None


def test_maps_come_to_figures(clock):
    monitor = DriftMonitor(["a"], {}, DriftConfig(window=20, spacing_seconds=0), clock)
    assert monitor.figures().figures == ()
    for number in range(50):
        assert monitor.offer("requests", 0, {"a": picture(number)})
        assert monitor.flush(SECONDS)
    found = {each.statistic: each for each in monitor.figures().figures}
    assert found.keys() == {"concentration", "centre_x", "centre_y", "border", "typicality"}
    assert 0 < found["border"].ratio < 1
    assert monitor.figures().dropped == 0
    monitor.close()


def test_what_comes_while_many_wait_is_dropped_and_counted(clock, monkeypatch):
    monitor = DriftMonitor(["a"], {}, DriftConfig(window=20, spacing_seconds=0), clock)
    begun, go = threading.Event(), threading.Event()

    def add(*offered):
        begun.set()
        assert go.wait(SECONDS)

    monkeypatch.setattr(monitor._tracker, "add", add)
    assert monitor.offer("requests", 0, {"a": picture()})
    assert begun.wait(SECONDS)
    assert sum(monitor.offer("requests", 0, {"a": picture()}) for _ in range(20)) == 16
    assert monitor.figures().dropped == 4
    go.set()
    assert monitor.flush(SECONDS)
    monitor.close()


def test_maps_are_copied(clock, monkeypatch):
    """The arrays of an answer are not held, nor is a change of them seen."""
    monitor = DriftMonitor(["a"], {}, DriftConfig(window=20, spacing_seconds=0), clock)
    got, maps = [], np.zeros((3, 8, 8), np.float32)
    monkeypatch.setattr(monitor._tracker, "add", lambda source, target, maps, counted: got.append(maps["a"]))
    monitor.offer("requests", 0, {"a": maps[1]})
    assert monitor.flush(SECONDS)
    assert got[0].base is None
    monitor.close()


def test_a_failure_does_not_end_the_watching(clock, monkeypatch):
    monitor = DriftMonitor(["a"], {}, DriftConfig(window=20, spacing_seconds=0), clock)
    calls = []

    def add(*offered):
        calls.append(offered)
        raise ValueError("on purpose")

    monkeypatch.setattr(monitor._tracker, "add", add)
    for _ in range(2):
        assert monitor.offer("requests", 0, {"a": picture()})
        assert monitor.flush(SECONDS)
    assert len(calls) == 2
    monitor.close()


def test_a_closed_one_takes_nothing_and_its_thread_ends(monitor):
    monitor.offer("requests", 0, {"a": picture()})
    monitor.close()
    monitor._thread.join(SECONDS)
    assert not monitor._thread.is_alive()
    assert not monitor.offer("samples", 0, {"a": picture()})
