"""How callers share the device: evenly, whatever each asks for. The device is an imaginary one."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_sidecar.engine.batch import MOST_LENT, Flow, Lane, Promise, Task
from xai_sidecar.engine.scheduler import Policy, Scheduler
from xai_sidecar.engine.work import Kind

MASKED, GRADIENT, FORWARD = Kind("masked_forward"), Kind("layer_gradient", "layer"), Kind("forward")
COSTS = {MASKED: {1: 0.004, 8: 0.016}, GRADIENT: {1: 0.01}, FORWARD: {1: 0.004, 8: 0.01}}
LARGEST = 0.016


class Device:
    """Runs jobs of callers, each of works of so many rows, one after the other.

    Attributes:
        now: Seconds that have passed.
        seconds: Of each caller, of the batches that were made for it.
        rows: Of each job, by its name.
    """

    def __init__(self):
        self.scheduler = Scheduler(COSTS.__getitem__, Policy())
        self.now = 0.0
        self.seconds, self.rows = Counter(), Counter()
        self.works = {}
        self.waits = {}

    def begin(self, caller, name, kind=MASKED, rows=32, lane=Lane.EXPLAIN, promise=None, head_start=0.0):
        flow = Flow(caller=caller, promise=promise, head_start=head_start)
        self.works[name] = (flow, kind, rows, lane)
        self.ask(name)

    def ask(self, name):
        flow, kind, rows, lane = self.works[name]
        self.waits[name] = self.now
        self.scheduler.add(Task(name, lane, kind, rows, flow), self.now)

    def end(self, name):
        flow, *_ = self.works.pop(name)
        task = flow.task
        self.scheduler.leave(flow)
        self.scheduler.discard(task)

    def run(self, seconds):
        end = self.now + seconds
        while self.now < end and (batch := self.scheduler.next(self.now)) is not None:
            self.now += batch.expected_seconds
            self.scheduler.ran(batch, batch.expected_seconds)
            self.seconds[batch.slices[0].task.flow.caller] += batch.expected_seconds
            for part in batch.slices:
                self.rows[part.task.owner] += part.row_count
                if part.stop == part.task.row_count and part.task.owner in self.works:
                    self.ask(part.task.owner)


@pytest.mark.parametrize("kinds", [(MASKED, MASKED), (MASKED, GRADIENT), (GRADIENT, MASKED), (GRADIENT, GRADIENT)])
@pytest.mark.parametrize("rows", [1, 32, 10**6])
def test_a_caller_with_one_explanation_gets_half_beside_one_with_a_hundred(kinds, rows):
    device = Device()
    for number in range(100):
        device.begin("many", number, kinds[0], rows)
    device.run(1.0)
    device.begin("one", "the one", kinds[1], rows)
    before = device.seconds.copy()
    for _ in range(2):
        device.run(1.0)
        had = device.seconds - before
        assert abs(had["one"] - had["many"]) <= 3 * LARGEST
    # And those of the one with a hundred share what is left for it.
    if rows > 8:
        assert (
            max(device.rows[number] for number in range(100))
            <= min(device.rows[number] for number in range(100)) + 4 * 8
        )


@settings(max_examples=15, deadline=None)
@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=5), seed=st.integers(0, 100))
def test_callers_share_evenly_however_many_explanations_each_has(counts, seed):
    device, random = Device(), Random(seed)
    for caller, count in enumerate(counts):
        for number in range(count):
            device.begin(str(caller), (caller, number), random.choice([MASKED, GRADIENT]), random.choice([1, 8, 50]))
    device.run(3.0)
    assert max(device.seconds.values()) - min(device.seconds.values()) <= 4 * LARGEST


def test_who_was_away_does_not_make_up_for_it():
    device = Device()
    device.begin("here", "a")
    device.begin("away", "b")
    device.run(1.0)
    device.end("b")
    device.run(10.0)
    device.begin("away", "c")
    before = device.seconds.copy()
    device.run(2.0)
    assert (device.seconds - before)["here"] == pytest.approx(1.0, abs=3 * LARGEST)


def test_who_comes_again_and_again_gets_no_more():
    """Explanations one after the other, each of them new."""
    device = Device()
    device.begin("here", "a")
    number = 0
    while device.now < 10.0:
        number += 1
        device.begin("again", number, rows=8)
        while not device.rows[number]:
            device.run(0.001)
        device.end(number)
    assert device.seconds["here"] == pytest.approx(5.0, abs=3 * LARGEST)


def test_promises_to_one_caller_are_not_kept_at_the_cost_of_another():
    """Beyond a head start, which it gives back."""
    device = Device()
    for number in range(50):
        device.begin("many", number, promise=Promise(20.0, 2000))
    device.run(1.0)
    device.begin("one", "the one")
    before = device.seconds.copy()
    device.run(10.0)
    had = device.seconds - before
    assert had["one"] >= 5.0 - MOST_LENT / 2 - 3 * LARGEST
    assert had["many"] >= 5.0 - 3 * LARGEST


def test_a_promise_is_kept_before_others_of_its_caller():
    device = Device()
    for number in range(20):
        device.begin("caller", number)
    device.begin("caller", "promised", promise=Promise(1.0, 300))
    device.run(1.0)
    assert device.rows["promised"] >= 300


def test_a_prediction_does_not_wait_for_all_of_another_caller():
    device = Device()
    for number in range(200):
        device.begin("many", number, FORWARD, 1, Lane.PREDICT)
    for number in range(20):
        device.begin("one", ("one", number), FORWARD, 1, Lane.PREDICT)
        began = device.now
        while not device.rows[("one", number)]:
            device.run(0.001)
        device.end(("one", number))
        assert device.now - began <= 2 * 0.01 + 1e-9
    assert sum(device.rows[number] for number in range(200)) >= 20 * 7


def test_predictions_of_a_caller_come_first_come_first_served():
    device = Device()
    for number in range(17):
        device.begin("caller", number, FORWARD, 1, Lane.PREDICT)
    for number in range(17):
        device.works.pop(number)
    device.run(0.021)
    assert [number for number in range(17) if device.rows[number]] == list(range(17))[:17][: sum(device.rows.values())]


def test_callers_that_have_gone_are_forgotten():
    device = Device()
    device.begin("here", "a")
    for number in range(400):
        device.begin(f"caller {number}", number, rows=1)
        device.run(0.05)
        device.end(number)
    accounts = device.scheduler._lanes[Lane.EXPLAIN]._accounts
    assert len(accounts) <= 300
    device.end("a")
    device.begin("last", "z", rows=1)
    device.end("z")
    assert "last" not in accounts
