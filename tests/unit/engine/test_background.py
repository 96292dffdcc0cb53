"""Evaluation that runs beside the device."""

import threading
import time
from collections import Counter
from functools import partial

import numpy as np
import pytest

from xai_sidecar.engine import background as module
from xai_sidecar.engine.batch import Lane, Task
from xai_sidecar.engine.batching import padded
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.scheduler import Policy, Scheduler
from xai_sidecar.engine.throttle import IdleThrottle
from xai_sidecar.engine.work import Forward, Kind, MaskedForward, forward

PATIENCE = 20
FORWARD, MASKED = Forward.kind, MaskedForward.kind


def column(*values):
    return np.array(values, np.float32)[:, None]


def until(true):
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


class Aside:
    """Doubles its inputs beside the device, each batch of one row once its gate is open, and counts them."""

    def __init__(self, concurrency=2, kinds=(FORWARD,), seconds=0.001):
        self.concurrency = concurrency
        self.kinds = set(kinds)
        self.seconds = seconds
        self.gate = threading.Event()
        self.gate.set()
        self.entered = []
        self.used_seconds = 0.0
        self.error = None
        self.closed = False
        self._lock = threading.Lock()

    def takes(self, kind):
        return kind in self.kinds

    def costs(self, kind):
        return {1: self.seconds}

    def run(self, kind, size, columns):
        rows = [padded(column, size) for column in columns]
        with self._lock:
            self.entered.append(float(rows[0][0, 0]))
        assert self.gate.wait(PATIENCE)
        with self._lock:
            self.used_seconds += 0.25
        if self.error is not None:
            raise self.error
        return (2 * rows[0],)

    def close(self):
        self.closed = True
        self.gate.set()


@pytest.fixture
def aside():
    return Aside()


@pytest.fixture
def start(request):
    """Starts an engine on a backend with something beside it; closed at the end."""

    def start(backend, aside, **options):
        engine = Engine(lambda: backend, make_background=lambda _: aside, **options)
        engine.start(lambda _: [FORWARD]).result(10)
        request.addfinalizer(lambda: (backend.gate.set(), aside.gate.set(), engine.close(5)))
        return engine

    return start


def rows_on(backend):
    return [float(value) for _, rows in backend.launches for value in rows[:, 0]]


def test_evaluation_runs_beside_and_the_rest_on_the_device(backend, aside, start):
    engine = start(backend, aside)
    measured = engine.submit(forward(column(1, 2, 3)), Lane.EVALUATE).result(PATIENCE).value
    np.testing.assert_array_equal(measured, column(2, 4, 6))
    assert sorted(aside.entered) == [1, 2, 3]
    assert backend.launches == []
    for lane in (Lane.PREDICT, Lane.EXPLAIN):
        np.testing.assert_array_equal(engine.submit(forward(column(5)), lane).result(PATIENCE).value, column(10))
    assert rows_on(backend) == [5, 5]


def test_nobody_waits_for_a_batch_beside(backend, aside, start):
    engine = start(backend, aside)
    aside.gate.clear()
    measured = engine.submit(forward(column(1, 2, 3)), Lane.EVALUATE)
    until(lambda: len(aside.entered) == 2)  # as many at once as it says
    for value in range(5):
        answer = engine.submit(forward(column(value)), Lane.PREDICT).result(PATIENCE).value
        np.testing.assert_array_equal(answer, column(2 * value))
    assert not measured.done()
    assert len(aside.entered) == 2
    aside.gate.set()
    np.testing.assert_array_equal(measured.result(PATIENCE).value, column(2, 4, 6))


def test_what_it_does_not_take_runs_on_the_device(backend, start):
    aside = Aside(kinds=())
    engine = start(backend, aside)
    np.testing.assert_array_equal(engine.submit(forward(column(1)), Lane.EVALUATE).result(PATIENCE).value, column(2))
    assert (aside.entered, rows_on(backend)) == ([], [1])


def test_what_fails_beside_runs_on_the_device(backend, aside, start):
    engine = start(backend, aside)
    aside.error = RuntimeError("the process has ended")
    job = engine.submit(forward(column(1, 2, 3)), Lane.EVALUATE)
    np.testing.assert_array_equal(job.result(PATIENCE).value, column(2, 4, 6))
    assert sorted(rows_on(backend)) == sorted(aside.entered)
    assert job.pass_count == 3


def test_what_is_late_runs_on_the_device_and_its_answer_counts_once(backend, aside, start, monkeypatch):
    monkeypatch.setattr(module, "_LATE_SECONDS", 0.05)
    engine = start(backend, aside)
    aside.gate.clear()
    job = engine.submit(forward(column(1, 2, 3)), Lane.EVALUATE)
    np.testing.assert_array_equal(job.result(PATIENCE).value, column(2, 4, 6))
    assert sorted(rows_on(backend)) == [1, 2, 3]
    aside.gate.set()
    until(lambda: aside.used_seconds == 0.25 * len(aside.entered))
    engine.submit(forward(column(9)), Lane.PREDICT).result(PATIENCE)
    assert job.pass_count == 3
    # After that it rests, though it has come back.
    begun = len(aside.entered)
    np.testing.assert_array_equal(engine.submit(forward(column(4)), Lane.EVALUATE).result(PATIENCE).value, column(8))
    assert len(aside.entered) == begun


def test_it_comes_back_after_its_rest(backend, aside, start, monkeypatch):
    monkeypatch.setattr(module, "_LATE_SECONDS", 0.05)
    monkeypatch.setattr(module, "_REST_SECONDS", 0.1)
    engine = start(backend, aside)
    aside.gate.clear()
    engine.submit(forward(column(1)), Lane.EVALUATE).result(PATIENCE)
    aside.gate.set()
    until(lambda: engine.submit(forward(column(7)), Lane.EVALUATE).result(PATIENCE) is not None and 7 in aside.entered)


def test_a_batch_that_was_cancelled_is_nobodys(backend, aside, start):
    engine = start(backend, aside)
    aside.gate.clear()
    job = engine.submit(forward(column(1)), Lane.EVALUATE)
    until(lambda: aside.entered)
    job.cancel()
    aside.gate.set()
    np.testing.assert_array_equal(engine.submit(forward(column(2)), Lane.EVALUATE).result(PATIENCE).value, column(4))
    assert rows_on(backend) == []


def test_what_it_used_is_reported(backend, aside, start, recorder):
    engine = start(backend, aside, observer=recorder)
    engine.submit(forward(column(1, 2)), Lane.EVALUATE).result(PATIENCE)
    until(lambda: len(recorder.launches) == 2)
    assert {(each.lane, each.row_count, each.overrun) for each in recorder.launches} == {(Lane.EVALUATE, 1, False)}
    assert sum(each.seconds for each in recorder.launches) == pytest.approx(0.5)


def test_closing_waits_for_nothing_beside(backend, aside, start, monkeypatch):
    monkeypatch.setattr(module, "_LATE_SECONDS", 0.05)
    engine = start(backend, aside)
    aside.gate.clear()
    engine.submit(forward(column(1)), Lane.EVALUATE).result(PATIENCE)
    assert engine.close(PATIENCE)
    assert aside.closed


def test_no_row_is_lost_or_doubled_in_a_crowd(backend, start, race):
    """Jobs of all lanes, some of whose batches fail beside."""
    aside = Aside(concurrency=3)
    engine = start(backend, aside, policy=Policy(evaluate_share=1.0))
    failing = threading.Event()

    def fail_now_and_then():
        while not failing.wait(0.002):
            aside.error = None if aside.error else RuntimeError("now and then")

    wrong = []

    def ask(lane, first):
        for _ in range(20):
            answer = engine.submit(forward(column(first, first + 1)), lane).result(PATIENCE).value
            if not np.array_equal(answer, column(2 * first, 2 * first + 2)):
                wrong.append(answer)
        wrong.append(None)

    toggling = threading.Thread(target=fail_now_and_then, daemon=True)
    toggling.start()
    try:
        race([partial(ask, lane, first) for first, lane in enumerate([*Lane] * 4)])
    finally:
        failing.set()
        toggling.join()
    assert wrong == [None] * 4 * len(Lane)


# ------------------------------------------------------------------------------------------------ the scheduler


def test_kinds_beside_wait_for_no_prediction_and_hold_none_up():
    kinds = {FORWARD}
    policy = Scheduler(lambda kind: {1: 1e-3}, beside=lambda kind: kind in kinds)
    policy.add(Task("beside", Lane.EVALUATE, FORWARD, 3))
    policy.add(Task("on it", Lane.EVALUATE, MASKED, 1))
    policy.add(Task("predict", Lane.PREDICT, FORWARD, 1))
    batch = policy.next_beside(0.0, lambda kind: {1: 1e-3, 2: 2e-3})
    assert [part.task.owner for part in batch.slices] == ["beside"]
    assert batch.size in (1, 2)
    order = []
    while (batch := policy.next(0.0)) is not None:
        order.append(batch.slices[0].task.owner)
        policy.ran(batch, 0.0)
    assert order == ["predict", "on it"]
    kinds.clear()  # what ran it has gone: the device takes over
    assert policy.next_beside(0.0, lambda kind: {1: 1e-3}) is None
    rest = Counter()
    while (batch := policy.next(0.0)) is not None:
        rest[batch.slices[0].task.owner] += batch.row_count
        policy.ran(batch, 0.0)
    assert rest["beside"] in (1, 2)


def test_flows_take_turns_beside():
    policy = Scheduler(lambda kind: {1: 1e-3}, beside=lambda kind: True)
    for owner in ("a", "b"):
        policy.add(Task(owner, Lane.EVALUATE, FORWARD, 3))
    owners = [policy.next_beside(0.0, lambda kind: {1: 1e-3}).slices[0].task.owner for _ in range(6)]
    assert Counter(owners[:2]) == Counter(owners[2:4]) == Counter(owners[4:]) == {"a": 1, "b": 1}
    assert policy.due_beside() is None


def test_the_share_holds_for_what_runs_beside():
    throttle = IdleThrottle(share=0.5, slice_seconds=0.005, quiet_slice_seconds=0.02)
    now, used = 100.0, 0.0
    while now < 200.0:
        if now >= throttle.begin_beside:
            used += 0.05  # of two batches at once on half of the CPUs each, say
            throttle.ran_beside(now + 0.05, 0.05)
        now += 0.01
    assert used / 100.0 == pytest.approx(0.5, abs=0.01)


def test_little_is_made_up_for_after_a_rest():
    throttle = IdleThrottle(share=0.5, slice_seconds=0.005, quiet_slice_seconds=0.02)
    throttle.ran_beside(100.0, 1.0)
    assert throttle.begin_beside > 101.0
    begun = 0
    while throttle.begin_beside <= 1000.0:
        throttle.ran_beside(1000.0, 0.05)
        begun += 1
    assert begun == 3  # a quarter of a second


def test_other_kinds_are_told_apart_by_all_that_they_are():
    layers = [Kind("layer_gradient", layer) for layer in ("a", "b")]
    policy = Scheduler(lambda kind: {1: 1e-3}, beside=lambda kind: kind == layers[1])
    for kind in layers:
        policy.add(Task(kind.layer, Lane.EVALUATE, kind, 1))
    assert policy.next(0.0).kind == layers[0]
    assert policy.next_beside(0.0, lambda kind: {1: 1e-3}).kind == layers[1]


def test_what_runs_beside_may_end_at_any_moment():
    """Between one question and the next it takes a kind no more."""
    answers = iter([True, False, False])
    policy = Scheduler(lambda kind: {1: 1e-3}, beside=lambda kind: next(answers))
    policy.add(Task("a", Lane.EVALUATE, FORWARD, 2))
    batch = policy.next_beside(0.0, lambda kind: {})  # nor says what a batch costs
    assert (batch.size, batch.row_count) == (1, 1)
    assert policy.next_beside(0.0, lambda kind: {}) is None
    assert policy.next(0.0).row_count == 1


def test_no_batch_beside_is_too_large_for_the_device(backend, start):
    backend.sizes, aside = (1, 2), Aside(concurrency=1)
    aside.costs = lambda kind: {1: 0.001, 2: 0.001, 4: 0.001}
    aside.error = RuntimeError("it has ended")
    engine = start(backend, aside)
    job = engine.submit(forward(column(1, 2, 3, 4)), Lane.EVALUATE)
    np.testing.assert_array_equal(job.result(PATIENCE).value, column(2, 4, 6, 8))
    assert sorted(rows_on(backend)) == [1, 2, 3, 4]
