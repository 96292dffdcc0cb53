"""How the device's time is shared: between predictions and explanations, and among explanations.

The devices are imaginary ones, whose launches take the time they are said to take; what the jobs had is added up here.
"""

import itertools
from collections import Counter
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from xai_sidecar.engine.batch import Flow, Lane, Task
from xai_sidecar.engine.scheduler import Policy, Scheduler
from xai_sidecar.engine.work import Kind

PREDICTION = Kind("forward")
ENDLESS = 10**9


class Dispatcher:
    """A device on which a launch of each kind takes its time, times a factor."""

    def __init__(self, costs, **policy):
        self.costs = costs
        self.scheduler = Scheduler(costs.__getitem__, Policy(**policy))
        self.now = 0.0
        self.service = Counter()
        self.lanes = Counter()
        self.runs = []
        self.refill = {}
        self.factor = lambda launch: 1.0

    def add(self, owner, lane, kind, row_count=ENDLESS, flow=None):
        piece = Task(owner, lane, kind, row_count, flow or Flow())
        self.scheduler.add(piece, self.now)
        return piece

    def keep_adding(self, owner, lane, kind, row_count):
        """Adds a piece whenever the last one is through: a job of many pieces."""
        turn = Flow()
        self.refill[owner] = lambda: self.add(owner, lane, kind, row_count, turn)
        return self.refill[owner]()

    def launch(self):
        launch = self.scheduler.next(self.now)
        if launch is None:
            return None
        seconds = launch.expected_seconds * self.factor(launch)
        self.now += seconds
        self.scheduler.ran(launch, seconds)
        self.lanes[launch.lane] += seconds
        self.runs.append((launch.lane, seconds))
        for part in launch.slices:
            self.service[part.task.owner] += seconds * part.row_count / launch.row_count
        for part in launch.slices:
            if part.stop == part.task.row_count and part.task.owner in self.refill:
                self.refill[part.task.owner]()
        return launch

    def run(self, seconds):
        end = self.now + seconds
        while self.now < end:
            if self.launch() is None:
                due = self.scheduler.due()
                if due is None:
                    break
                assert due > self.now
                self.now = due
        self.now = max(self.now, end)

    def in_a_row(self, lane):
        """The seconds of each run of launches of a lane."""
        groups = itertools.groupby(self.runs, key=lambda run: run[0])
        return [[seconds for _, seconds in group] for key, group in groups if key is lane]


def kind_of(number):
    return Kind("layer_gradient", f"layer{number}")


milliseconds = st.floats(0.5, 50).map(lambda value: value / 1e3)

# ------------------------------------------------------------------------------------ predictions and explanations


@settings(max_examples=40, deadline=None)
@given(
    share=st.floats(0.02, 0.9),
    predict=milliseconds,
    explain=st.lists(milliseconds, min_size=1, max_size=3),
    rows=st.integers(1, 40),
)
def test_explanations_get_their_share_of_an_endless_flood_and_no_more(share, predict, explain, rows):
    """Also where launches are longer than the slice, or predictions much longer or shorter than explanations."""
    costs = {PREDICTION: {1: predict}} | {kind_of(i): {1: cost, 4: 2 * cost} for i, cost in enumerate(explain)}
    device = Dispatcher(costs, explain_share=share)
    device.add("flood", Lane.PREDICT, PREDICTION)
    for i in range(len(explain)):
        device.keep_adding(i, Lane.EXPLAIN, kind_of(i), rows)
    largest = 2 * max(explain) + predict
    for _ in range(3):
        device.run(8 * largest / share)
        assert abs(device.lanes[Lane.EXPLAIN] - share * device.now) <= largest
    # No prediction waits for more than one launch, but where one launch is less than what a prediction owes.
    owed_for_one = share / (1 - share) * predict
    for row in device.in_a_row(Lane.EXPLAIN):
        assert len(row) <= 1 + owed_for_one / min(explain) + 1e-6
        assert sum(row) <= max(2 * max(explain), 0.02) + owed_for_one + 1e-9


@pytest.mark.parametrize("explain", [0.001, 0.02, 0.5])
def test_a_prediction_waits_for_one_explanation_launch_at_most(explain):
    device = Dispatcher({PREDICTION: {1: 0.002}, kind_of(0): {1: explain}}, explain_share=0.1)
    device.add("flood", Lane.PREDICT, PREDICTION)
    device.add("explain", Lane.EXPLAIN, kind_of(0))
    device.run(20.0)
    assert {len(row) for row in device.in_a_row(Lane.EXPLAIN)} == {1}
    assert device.lanes[Lane.EXPLAIN] == pytest.approx(2.0, abs=explain + 0.002)


def test_without_a_share_explanations_wait_for_a_pause():
    device = Dispatcher({PREDICTION: {1: 0.002}, kind_of(0): {1: 0.002}}, explain_share=0.0)
    flood = device.add("flood", Lane.PREDICT, PREDICTION)
    device.add("explain", Lane.EXPLAIN, kind_of(0))
    device.run(10.0)
    assert not device.lanes[Lane.EXPLAIN]
    device.scheduler.discard(flood)
    device.run(1.0)
    assert device.lanes[Lane.EXPLAIN] == pytest.approx(1.0, abs=0.01)


def test_evaluation_gets_nothing_while_anything_else_waits():
    device = Dispatcher({PREDICTION: {1: 0.002}, kind_of(0): {1: 0.002}}, explain_share=0.5)
    device.add("measure", Lane.EVALUATE, kind_of(0))
    flood = device.add("flood", Lane.PREDICT, PREDICTION)
    device.run(10.0)
    explain = device.add("explain", Lane.EXPLAIN, kind_of(0))
    device.run(10.0)
    device.scheduler.discard(flood)
    device.run(10.0)
    assert not device.lanes[Lane.EVALUATE]
    device.scheduler.discard(explain)
    device.run(10.0)
    assert device.lanes[Lane.EVALUATE] == pytest.approx(10.0, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(
    share=st.floats(0.05, 0.9),
    predict=milliseconds,
    explain=milliseconds,
    phases=st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0.05, 5.0)), min_size=2, max_size=8),
)
def test_neither_side_makes_up_for_what_it_did_not_want(share, predict, explain, phases):
    """In every time in which both want the device, the share holds but for a few launches, whatever was before."""
    device = Dispatcher({PREDICTION: {1: predict}, kind_of(0): {1: explain}}, explain_share=share)
    few = max(0.02, explain) + explain + predict
    for predicting, explaining, seconds in phases:
        pieces = [device.add("predict", Lane.PREDICT, PREDICTION)] if predicting else []
        pieces += [device.add("explain", Lane.EXPLAIN, kind_of(0))] if explaining else []
        before, began = device.lanes[Lane.EXPLAIN], device.now
        device.run(seconds)
        if predicting and explaining:
            got = device.lanes[Lane.EXPLAIN] - before
            assert abs(got - share * (device.now - began)) <= few
        for piece in pieces:
            device.scheduler.discard(piece)


def test_what_was_owed_for_dear_launches_is_not_spent_on_a_burst_of_cheap_ones():
    """An explanation whose launches take a second waits for long and is given up; a minute later there is another."""
    device = Dispatcher({PREDICTION: {1: 0.002}, kind_of(0): {1: 1.0}, kind_of(1): {1: 0.001}}, explain_share=0.1)
    device.add("flood", Lane.PREDICT, PREDICTION)
    dear = device.add("dear", Lane.EXPLAIN, kind_of(0))
    device.run(8.9)
    assert not device.lanes[Lane.EXPLAIN]
    device.scheduler.discard(dear)
    device.run(60.0)
    device.runs.clear()
    device.add("cheap", Lane.EXPLAIN, kind_of(1))
    device.run(2.0)
    assert max(sum(row) for row in device.in_a_row(Lane.EXPLAIN)) <= 0.021


# ------------------------------------------------------------------------------------ explanations among themselves


@settings(max_examples=60, deadline=None)
@given(
    costs=st.lists(milliseconds, min_size=2, max_size=5),
    rows=st.lists(st.sampled_from([1, 3, 50, ENDLESS]), min_size=5, max_size=5),
    lane=st.sampled_from([Lane.EXPLAIN, Lane.EVALUATE]),
)
def test_jobs_get_the_same_time_whatever_their_launches_cost(costs, rows, lane):
    device = Dispatcher({kind_of(i): {1: cost} for i, cost in enumerate(costs)})
    for i in range(len(costs)):
        device.keep_adding(i, lane, kind_of(i), rows[i])
    for _ in range(300):
        device.launch()
        for (i, one), (j, other) in itertools.combinations(enumerate(costs), 2):
            assert abs(device.service[i] - device.service[j]) <= one + other + 1e-9


@settings(max_examples=60, deadline=None)
@given(costs=st.lists(milliseconds, min_size=2, max_size=4), seed=st.integers(0, 2**32))
def test_jobs_get_the_same_time_though_launches_take_longer_than_expected(costs, seed):
    device = Dispatcher({kind_of(i): {1: cost} for i, cost in enumerate(costs)}, slice_seconds=1.0)
    randomness = Random(seed)
    device.factor = lambda launch: randomness.choice([0.25, 1.0, 1.0, 1.0, 1.5, 8.0])
    largest = Counter()
    for i in range(len(costs)):
        device.add(i, Lane.EXPLAIN, kind_of(i))
    for _ in range(200):
        launch = device.launch()
        owner = launch.slices[0].task.owner
        largest[owner] = max(largest[owner], launch.expected_seconds, device.runs[-1][1])
        for i, j in itertools.combinations(range(len(costs)), 2):
            assert abs(device.service[i] - device.service[j]) <= largest[i] + largest[j] + 1e-9


def test_a_job_whose_launches_take_longer_than_expected_is_not_served_twice_for_it():
    device = Dispatcher({kind_of(i): {1: 0.01} for i in range(2)})
    device.factor = lambda launch: 100.0 if launch.slices[0].task.owner == 0 else 1.0
    for i in range(2):
        device.add(i, Lane.EXPLAIN, kind_of(i))
    order = [device.launch().slices[0].task.owner for _ in range(100)]
    assert order.count(0) == 1


@settings(max_examples=60, deadline=None)
@given(
    costs=st.lists(milliseconds, min_size=1, max_size=4),
    new=milliseconds,
    after=st.integers(0, 100),
    rows=st.sampled_from([2, ENDLESS]),
)
def test_a_newcomer_waits_for_a_launch_of_each_other_at_most(costs, new, after, rows):
    kinds = {kind_of(i): {1: cost} for i, cost in enumerate(costs)}
    device = Dispatcher({**kinds, kind_of(9): {1: new}})
    for i in range(len(costs)):
        device.keep_adding(i, Lane.EXPLAIN, kind_of(i), rows)
    for _ in range(after):
        device.launch()
    device.add("new", Lane.EXPLAIN, kind_of(9), 1)
    launches, seconds = Counter(), Counter()
    while (owner := device.launch().slices[0].task.owner) != "new":
        launches[owner] += 1
        seconds[owner] += device.runs[-1][1]
        # Of those whose launches are short it may be several, for no more time than one launch of the others and one of
        # its own take.
        assert launches[owner] == 1 or seconds[owner] <= max(costs) + new + 1e-9


@settings(max_examples=40, deadline=None)
@given(
    jobs=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([1, 2, 7, 40])), min_size=1, max_size=6),
    cost=milliseconds,
    after=st.integers(0, 100),
)
def test_a_newcomer_does_not_wait_long_where_others_ride_along_in_each_others_launches(jobs, cost, after):
    costs = {1: cost, 4: 1.5 * cost, 8: 2 * cost}
    device = Dispatcher({kind_of(number): costs for number in (0, 1, 2, 9)}, slice_seconds=0.2)
    for owner, (number, rows) in enumerate(jobs):
        device.keep_adding(owner, Lane.EXPLAIN, kind_of(number), rows)
    for _ in range(after):
        device.launch()
    piece = device.add("new", Lane.EXPLAIN, kind_of(9), 1)
    began = device.now
    while piece.waiting:
        device.launch()
        assert device.now - began <= (len(jobs) + 1) * max(costs.values()) + 1e-9


def test_a_newcomer_does_not_pay_for_the_pauses_of_others():
    """Two jobs that took turns with a device that was half idle for long, and are then both there all the time."""
    device = Dispatcher({kind_of(i): {1: 0.01} for i in range(3)})
    turns = Flow(), Flow()
    for _ in range(1000):
        for i, turn in enumerate(turns):
            device.add(i, Lane.EXPLAIN, kind_of(i), 1, turn)
            device.launch()
    device.add("new", Lane.EXPLAIN, kind_of(2), 1)
    for i, turn in enumerate(turns):
        device.add(i, Lane.EXPLAIN, kind_of(i), ENDLESS, turn)
    assert "new" in [device.launch().slices[0].task.owner for _ in range(5)]


@settings(max_examples=100, deadline=None)
@given(costs=st.lists(milliseconds, min_size=2, max_size=5), seed=st.integers(0, 2**32))
def test_nobody_waits_long_whoever_comes_goes_and_pauses(costs, seed):
    """Jobs of many pieces that pause between them, and are each followed by a new one in the end."""
    randomness = Random(seed)
    device = Dispatcher({kind_of(i): {1: cost} for i, cost in enumerate(costs)}, slice_seconds=1.0)
    device.factor = lambda launch: randomness.choice([0.5, 1.0, 1.0, 2.0])
    numbers = range(len(costs))
    pause = [randomness.choice([0, 0, 1, 5]) * max(costs) for _ in numbers]
    length = [randomness.choice([1, 3, 1000]) for _ in numbers]
    turns, pieces, back, waited = {}, {}, dict.fromkeys(numbers, 0.0), Counter()
    for _ in range(400):
        for i in [i for i in back if back[i] <= device.now]:
            del back[i]
            if i not in turns or randomness.random() < 1 / length[i]:
                turns[i] = Flow()
            pieces[i] = device.add(i, Lane.EXPLAIN, kind_of(i), randomness.choice([1, 1, 5]), turns[i])
            waited[i] = device.now
        launch = device.launch()
        if launch is None:
            device.now = min(back.values())
            continue
        (part,) = launch.slices
        i = part.task.owner
        waited[i] = device.now
        if not part.task.waiting:
            del pieces[i]
            back[i] = device.now + pause[i]
        assert all(device.now - waited[other] <= 3 * len(costs) * 2 * max(costs) + 1e-9 for other in pieces)


def test_a_newcomer_does_not_wait_for_others_to_catch_up_with_a_launch_that_took_long():
    device = Dispatcher({kind_of(i): {1: 0.01} for i in range(3)})
    device.factor = lambda launch: 100.0 if launch.slices[0].task.owner == 0 else 1.0
    for i in range(2):
        device.add(i, Lane.EXPLAIN, kind_of(i))
    for _ in range(10):
        device.launch()
    device.add("new", Lane.EXPLAIN, kind_of(2), 1)
    assert "new" in [device.launch().slices[0].task.owner for _ in range(3)]


@settings(max_examples=40, deadline=None)
@given(costs=st.lists(milliseconds, min_size=2, max_size=4), idle=st.floats(0.1, 20), row_count=st.integers(1, 30))
def test_a_job_that_comes_back_does_not_make_up_for_its_pause(costs, idle, row_count):
    device = Dispatcher({kind_of(i): {1: cost} for i, cost in enumerate(costs)})
    turn = Flow()
    device.add(0, Lane.EXPLAIN, kind_of(0), row_count, turn)
    for i in range(1, len(costs)):
        device.add(i, Lane.EXPLAIN, kind_of(i))
    device.run(row_count * sum(costs) * len(costs) + idle)
    device.add(0, Lane.EXPLAIN, kind_of(0), ENDLESS, turn)
    device.service.clear()
    for _ in range(200):
        device.launch()
        assert all(
            device.service[0] - device.service[i] <= 2 * (costs[0] + max(costs)) + 1e-9 for i in range(1, len(costs))
        )


@pytest.mark.parametrize("clients", [1, 2, 8])
@pytest.mark.parametrize("cost", [0.002, 0.02])
def test_a_stream_of_newcomers_starves_nobody(clients, cost):
    """Clients that send one short explanation after the other, each a job of its own, beside a long one."""
    device = Dispatcher({kind_of(0): {1: 0.01}, kind_of(1): {1: cost}})
    device.add("long", Lane.EXPLAIN, kind_of(0))
    for _ in range(3):
        device.launch()
    device.service.clear()
    for _ in range(clients):
        device.add("short", Lane.EXPLAIN, kind_of(1), 1)
    began = device.now
    for _ in range(2000):
        for part in device.launch().slices:
            if part.task.owner == "short":
                device.add("short", Lane.EXPLAIN, kind_of(1), 1)
    # Half of an even share, at the least.
    assert device.service["long"] >= (device.now - began) / (clients + 1) / 2


def test_one_that_rode_along_for_long_does_not_starve_when_it_cannot_any_more():
    """The launches of a job of one row at a time are filled up with another's rows; a third is of another kind."""
    costs = {1: 0.001, 8: 0.0011}
    device = Dispatcher({kind_of(0): costs, kind_of(1): costs})
    device.keep_adding("small", Lane.EXPLAIN, kind_of(0), 1)
    device.add("filler", Lane.EXPLAIN, kind_of(0))
    device.add("other", Lane.EXPLAIN, kind_of(1))
    for _ in range(1000):
        device.launch()
    del device.refill["small"]
    assert "filler" in [device.launch().slices[0].task.owner for _ in range(5)]


@settings(max_examples=60, deadline=None)
@given(
    jobs=st.lists(st.tuples(st.integers(0, 1), st.sampled_from([1, 2, 7, 40])), min_size=2, max_size=6),
    cost=milliseconds,
    per_row=st.floats(0.0, 1.0),
)
def test_nobody_starves_where_jobs_ride_along_in_each_others_launches(jobs, cost, per_row):
    costs = {size: cost * (1 + per_row * size) for size in (1, 4, 8)}
    assume(max(costs.values()) < 0.2)
    device = Dispatcher({kind_of(0): costs, kind_of(1): costs}, slice_seconds=0.2)
    for owner, (number, rows) in enumerate(jobs):
        device.keep_adding(owner, Lane.EXPLAIN, kind_of(number), rows)
    since = Counter()
    for _ in range(400):
        launch = device.launch()
        served = {part.task.owner for part in launch.slices}
        for owner in range(len(jobs)):
            since[owner] = 0.0 if owner in served else since[owner] + device.runs[-1][1]
        # Each of the others may have had one launch, and one more that it is ahead by.
        assert max(since.values()) <= 2 * len(jobs) * max(costs.values()) + 1e-9


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_evaluation_alone_gets_its_share_and_no_more(share):
    device = Dispatcher({kind_of(0): {1: 0.002, 4: 0.006}}, evaluate_share=share)
    device.add("measure", Lane.EVALUATE, kind_of(0))
    device.run(10.0)
    assert device.lanes[Lane.EVALUATE] == pytest.approx(10.0 * share, rel=0.02)
