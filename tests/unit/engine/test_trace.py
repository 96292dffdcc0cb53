"""Steps of a call: each begins where the one before it ended, on whatever thread."""

import numpy as np

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.trace import Trace, branched, current_trace, joined, mark, traced
from xai_sidecar.engine.work import forward


def of(trace):
    return [(step.name, step.started, step.ended) for step in trace.steps]


def test_each_step_begins_where_the_last_one_ended():
    trace = Trace("call", started=1.0)
    trace.mark("parse", 2.0)
    trace.mark("admit", 5.0)
    assert of(trace) == [("parse", 1.0, 2.0), ("admit", 2.0, 5.0)]
    assert [step.seconds for step in trace.steps] == [1.0, 3.0]


def test_what_is_done_at_once_begins_at_once_and_the_next_step_waits_for_the_last_of_it():
    trace = Trace("call", started=1.0)
    trace.mark("parse", 2.0)
    one, other = trace.branch(), trace.branch()
    other.mark("decode", 7.0)
    one.mark("decode", 3.0)
    for branch in (other, one):
        trace.join(branch)
    trace.mark("answer", 8.0)
    assert of(trace) == [("parse", 1.0, 2.0), ("decode", 2.0, 7.0), ("decode", 2.0, 3.0), ("answer", 7.0, 8.0)]


def test_a_call_that_is_not_traced_has_none():
    mark("parse")
    assert current_trace() is branched() is None
    joined(None, "decode_back")
    with traced(trace := Trace()):
        assert current_trace() is trace
        with traced(None):
            mark("parse")
    assert current_trace() is None
    assert not trace.steps


def test_a_prediction_leaves_the_steps_of_its_way_through_the_engine(backend, start):
    engine = start(backend)
    with traced(trace := Trace()):
        jobs = [engine.submit(forward(np.ones((1, 1), np.float32)), Lane.PREDICT) for _ in range(2)]
        for job in jobs:
            job.result(10)
            joined(job.trace, "way_back")
    names = [step.name for step in trace.steps]
    assert sorted(names) == sorted(2 * ["hand_over", "device_wait", "pass", "way_back"])
    assert all(step.ended >= step.started for step in trace.steps)
    assert trace.last == max(step.ended for step in trace.steps)


def test_explanations_and_untraced_predictions_leave_none(backend, start):
    engine = start(backend)
    assert engine.submit(forward(np.ones((1, 1), np.float32)), Lane.PREDICT).trace is None
    with traced(Trace()):
        assert engine.submit(forward(np.ones((1, 1), np.float32)), Lane.EXPLAIN).trace is None
