"""A backend whose answers are plain arithmetic, and an observer that remembers."""

import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import Kind, forward


class Doubling:
    """Doubles its inputs, at once. Values of `poison` fail their whole launch; `gate` holds launches back."""

    device = "cpu"
    engine = "arithmetic"
    version = "1"
    class_count = 1

    def __init__(self, sizes=(1, 2, 4), poison=None):
        self.layers = {}
        self.default_layer = None
        self.sizes = sizes
        self.poison = poison
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.launches = []
        self.closed_on = None

    def warm_up(self, kinds, report):
        report("warm")
        return {}

    def costs(self, kind):
        return {size: (1.0 + 0.1 * size) * 1e-3 for size in self.sizes}

    def run(self, kind, rows):
        self.entered.release()
        assert self.gate.wait(20)
        assert len(rows[0]) in self.sizes
        self.launches.append((kind, rows[0].copy()))
        if self.poison is not None and self.poison in rows[0]:
            raise RuntimeError("poisoned\nmore lines")
        return (2 * rows[0],)

    def close(self):
        self.closed_on = threading.current_thread().name


class Recorder:
    """Remembers what it is told."""

    def __init__(self):
        self.launches = []
        self.ends = []

    def batch_ran(self, record):
        self.launches.append(record)

    def ended(self, lane, outcome):
        self.ends.append((lane, outcome))

    def outcomes(self, count):
        """How jobs ended, once that many have: callers learn of it before the observer does."""
        patience = time.monotonic() + 5
        while len(self.ends) < count and time.monotonic() < patience:
            time.sleep(0.001)
        return Counter(self.ends)


def _race(functions):
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    finally:
        sys.setswitchinterval(interval)


@pytest.fixture
def race():
    """Runs functions in a thread each, with Python changing between them as often as it can."""
    return _race


@pytest.fixture
def backend():
    return Doubling()


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def start(request):
    """Starts an engine on a backend; closed at the end."""

    def start(backend, **options):
        engine = Engine(lambda: backend, **options)
        engine.start(lambda _: [Kind("forward")]).result(10)
        request.addfinalizer(lambda: (backend.gate.set(), engine.close(5)))
        return engine

    return start


@pytest.fixture
def hold():
    """Occupies the device with a launch that does not end before the gate opens."""

    def hold(backend, engine):
        while backend.entered.acquire(blocking=False):
            pass
        backend.gate.clear()
        future = engine.submit(forward(np.zeros((1, 1), np.float32)), Lane.PREDICT)
        assert backend.entered.acquire(timeout=10)
        return future

    return hold
