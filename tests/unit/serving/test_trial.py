"""What the beginnings of explanations, run at start, tell of their costs; and that they are none of the traffic."""

from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.job import JobOutcome
from xai_sidecar.engine.work import Forward, Partial, drive
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.serving import trial
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.trial import Unseen, beginning, try_explainers
from xai_sidecar.telemetry import Telemetry


class Clock:
    """Stands still but for what is added."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(trial, "time", clock)
    return clock


@pytest.fixture
def pieces(clock):
    """A computation that asks for some rows at a time and takes 1 s before each, 5 s before the first."""

    def pieces(*counts):
        clock.now += 4
        for count in counts:
            clock.now += 1
            yield Partial(lambda: None)
            assert (yield Forward(np.zeros((count, 1)))).shape == (count, 1)
        clock.now += 50

    return pieces


@pytest.fixture
def run(clock):
    """Runs rows, 0.1 s each; the first launch takes 7 s more."""
    launches = []

    def run(kind, rows):
        clock.now += 0.1 * len(rows[0]) + 7 * (not launches)
        launches.append(len(rows[0]))
        return rows

    run.launches = launches
    return run


def test_the_beginning_of_a_computation(pieces, run):
    """8, 2 and 3 rows and the first launch's 7 s, and 1 s before the two later ones and before the one not run."""
    assert drive(beginning(pieces(8, 2, 3, 6, 6), 15), run) == pytest.approx(1.3 + 7 + 3)
    assert run.launches == [8, 2, 3]


def test_a_computation_shorter_than_its_beginning(pieces, run):
    """5 rows and the first launch's 7 s, 1 s between the two, and 50 s after them."""
    assert drive(beginning(pieces(1, 4), 60), run) == pytest.approx(0.5 + 7 + 1 + 50)
    assert drive(beginning(pieces(), 15), run) == 0


@pytest.fixture
def started(make_net, make_model, request):
    """A model, the engine that it runs on, its telemetry and what stands between them."""

    def started(seconds, *overrides):
        net = make_net(seconds)
        telemetry = Telemetry(CollectorRegistry(), installed_explainers())
        observer = Unseen(telemetry)
        engine = Engine(lambda: net, observer=observer)
        engine.start(lambda _: []).result(10)
        request.addfinalizer(lambda: (net.gate.set(), engine.close(10)))
        return net, make_model(*overrides, backend=net), engine, telemetry, observer

    return started


async def test_explainers_of_many_passes_have_a_figure_from_the_start(started):
    net, model, engine, telemetry, _ = started(0.002)
    costs = ExplanationCosts(engine)
    await try_explainers(model, engine, costs)
    assert sorted(costs._at_start) == ["occlusion", "rise"]
    assert len(net.launches) > 2
    assert telemetry.registry.get_sample_value("xai_launches_total", {"kind": "masked_forward"}) == 0


async def test_a_model_of_slow_passes_is_not_tried(started):
    net, model, engine, *_ = started(0.5)
    costs = ExplanationCosts(engine)
    await try_explainers(model, engine, costs)
    assert (net.launches, costs._at_start) == ([], {})


async def test_a_device_that_fails_leaves_the_passes_figure(started, monkeypatch):
    net, model, engine, *_ = started(0.001)

    def run(kind, rows):
        raise ValueError("out of memory")

    monkeypatch.setattr(net, "run", run)
    costs = ExplanationCosts(engine)
    await try_explainers(model, engine, costs)
    assert costs.ratio("rise") == 1


def test_explanations_are_seen_once_the_server_is_ready():
    seen = []
    observer = Unseen(SimpleNamespace(batch_ran=seen.append, ended=lambda lane, outcome: seen.append(lane)))
    for lane in (Lane.EXPLAIN, Lane.PREDICT):
        observer.batch_ran(SimpleNamespace(lane=lane))
        observer.ended(lane, JobOutcome.DONE)
    assert [getattr(each, "lane", each) for each in seen] == [Lane.PREDICT] * 2
    observer.ready = True
    observer.ended(Lane.EXPLAIN, JobOutcome.DONE)
    observer.batch_ran(SimpleNamespace(lane=Lane.EXPLAIN))
    assert len(seen) == 4
