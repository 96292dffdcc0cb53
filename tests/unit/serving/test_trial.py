"""What the beginnings of explanations, run at start, tell of their costs; and that they are none of the traffic."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.job import JobOutcome
from xai_sidecar.engine.work import Forward, Partial, drive
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.trial import Unseen, beginning, try_explainers
from xai_sidecar.telemetry import Telemetry


def pieces(*counts):
    """A computation that asks for some rows at a time."""
    for count in counts:
        yield Partial(lambda: None)
        assert (yield Forward(np.zeros((count, 1)))).shape == (count, 1)


@pytest.mark.parametrize(
    ("counts", "ran"), [((8, 2, 3, 6, 6), [8, 2, 3]), ((8, 7, 1), [8, 7]), ((1, 4), [1, 4]), ((16,), []), ((), [])]
)
def test_the_beginning_of_a_computation(counts, ran):
    launches = []

    def run(kind, rows):
        launches.append(len(rows[0]))
        return rows

    assert drive(beginning(pieces(*counts), 15), run) == sum(ran)
    assert launches == ran


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
    await try_explainers(model, engine)
    slowdowns = {name: ExplanationCosts(engine).ratio(name) for name in installed_explainers()}
    assert sorted(name for name in slowdowns if slowdowns[name] != 1) == ["occlusion", "rise"]
    assert min(slowdowns.values()) == 1, "a batch takes 2 ms at the least"
    assert len(net.launches) > 2
    assert telemetry.registry.get_sample_value("xai_launches_total", {"kind": "masked_forward"}) == 0


async def test_what_is_known_is_not_tried_again_and_expected_as_it_was_found(started):
    net, model, engine, *_ = started(0.002)
    found = await try_explainers(model, engine)
    assert found == {name: engine.usual_slowdown(name) for name in ("occlusion", "rise")}
    net, model, engine, *_ = started(0.002)
    known = {"occlusion": 1.0, "rise": 1.5}
    assert await try_explainers(model, engine, known) == known
    assert net.launches == []
    assert {name: ExplanationCosts(engine).ratio(name) for name in known} == pytest.approx(known)
    net, model, engine, *_ = started(0.002)
    assert (await try_explainers(model, engine, {"rise": 1.25}))["rise"] == 1.25
    assert net.launches  # occlusion's


async def test_what_a_busy_machine_made_large_is_tried_again_and_the_least_counts(started, monkeypatch):
    _, model, engine, *_ = started(0.002)
    ratios = {"rise, 0": 7.0, "rise, 1": 2.5, "occlusion, 0": 1.2, "occlusion, 1": 0.1}
    monkeypatch.setattr(engine, "usual_slowdown", ratios.get)
    assert await try_explainers(model, engine) == {"rise": 2.5, "occlusion": 1.2}
    assert await try_explainers(model, engine, {"rise": 2.0, "occlusion": 6.0}) == {"rise": 2.0, "occlusion": 0.1}
    assert engine._device.slowdown.usual("rise") == 2.0


async def test_what_was_learned_last_is_in_what_is_returned(started, monkeypatch):
    """The device thread hears a moment later that a job has ended."""
    _, model, engine, *_ = started(0.002)
    drop = engine._drop
    monkeypatch.setattr(engine, "_drop", lambda job: (time.sleep(0.1), drop(job)))
    found = await try_explainers(model, engine)
    time.sleep(0.3)
    assert found == {name: engine.usual_slowdown(name) for name in found}
    assert len(found) == 2


async def test_a_model_of_slow_passes_is_not_tried(started):
    net, model, engine, *_ = started(0.5)
    await try_explainers(model, engine)
    assert net.launches == []


async def test_a_device_that_fails_leaves_the_passes_figure(started, monkeypatch):
    net, model, engine, *_ = started(0.001)

    def run(kind, rows):
        raise ValueError("out of memory")

    monkeypatch.setattr(net, "run", run)
    assert await try_explainers(model, engine) == {}
    assert ExplanationCosts(engine).ratio("rise") == 1


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
