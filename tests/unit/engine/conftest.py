"""A backend whose answers are plain arithmetic."""

import threading

import pytest

from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import Kind


class Doubling:
    """Doubles its inputs. Values of `poison` fail their whole launch; `gate` holds launches back."""

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

    def costs(self, kind):
        return {size: 1.0 + 0.1 * size for size in self.sizes}

    def run(self, kind, rows):
        self.entered.release()
        assert self.gate.wait(10)
        assert len(rows[0]) in self.sizes
        self.launches.append((kind, rows[0].copy()))
        if self.poison is not None and self.poison in rows[0]:
            raise RuntimeError("poisoned\nmore lines")
        return (2 * rows[0],)

    def close(self):
        self.closed_on = threading.current_thread().name


@pytest.fixture
def backend():
    return Doubling()


@pytest.fixture
def start(request):
    """Starts an engine on a backend; closed at the end."""

    def start(backend, **options):
        engine = Engine(lambda: backend, **options)
        engine.start(lambda _: [Kind("forward")]).result(10)
        request.addfinalizer(lambda: (backend.gate.set(), engine.close(10)))
        return engine

    return start
