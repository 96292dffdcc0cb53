"""The policy on its own: no rows lost, doubled or mixed up, lanes in order, launches within the slice."""

from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from xai_sidecar.engine.batch import Batch, Flow, Lane, Task
from xai_sidecar.engine.scheduler import Policy, Scheduler, best_size
from xai_sidecar.engine.throttle import IdleThrottle
from xai_sidecar.engine.work import Kind

FORWARD = Kind("forward")
GRADIENT = Kind("input_gradient")
LAYER = Kind("layer_gradient", "conv")
KINDS = (FORWARD, GRADIENT, LAYER)


def scheduler(*sizes, **policy):
    """One whose launches cost as many milliseconds as they have rows."""
    return Scheduler(lambda kind: {size: 1e-3 * size for size in sizes}, Policy(**policy))


def owners(launch):
    return [part.task.owner for part in launch.slices]


def drained(policy, now=0.0):
    launches = []
    while (launch := policy.next(now)) is not None:
        policy.ran(launch, launch.expected_seconds)
        launches.append(launch)
        assert len(launches) < 10_000
    return launches


def test_an_empty_queue_has_nothing_to_do():
    policy = scheduler(1)
    assert policy.next() is None
    assert policy.due() is None
    assert [policy.waiting(lane) for lane in Lane] == [0, 0, 0]


def test_lanes_go_in_their_order_at_every_launch_boundary():
    policy = scheduler(1)
    policy.add(Task("measure", Lane.EVALUATE, FORWARD, 2))
    assert owners(policy.next()) == ["measure"]
    policy.add(Task("explain", Lane.EXPLAIN, GRADIENT, 2))
    assert owners(policy.next()) == ["explain"]
    policy.add(Task("predict", Lane.PREDICT, FORWARD, 1))
    assert [owners(launch) for launch in drained(policy)] == [["predict"], ["explain"], ["measure"]]


def test_rows_of_one_kind_share_a_launch_and_others_keep_out():
    policy = Scheduler(lambda kind: {1: 1e-3, 4: 1e-3})
    policy.add(Task("a", Lane.EXPLAIN, FORWARD, 1))
    policy.add(Task("b", Lane.EXPLAIN, GRADIENT, 1))
    policy.add(Task("c", Lane.EXPLAIN, FORWARD, 2))
    first, second = drained(policy)
    assert owners(first) == ["a", "c"]
    assert (first.kind, first.size, first.row_count, first.lane) == (FORWARD, 4, 3, Lane.EXPLAIN)
    assert owners(second) == ["b"]


def test_lanes_and_layers_do_not_mix():
    policy = scheduler(1, 4)
    policy.add(Task("a", Lane.EXPLAIN, Kind("layer_gradient", "x"), 1))
    policy.add(Task("b", Lane.EXPLAIN, Kind("layer_gradient", "y"), 1))
    policy.add(Task("c", Lane.PREDICT, Kind("layer_gradient", "y"), 1))
    assert [owners(launch) for launch in drained(policy)] == [["c"], ["a"], ["b"]]


def test_a_piece_larger_than_a_launch_is_cut():
    policy = scheduler(4)
    policy.add(Task("a", Lane.EXPLAIN, FORWARD, 10))
    parts = [(part.start, part.stop) for launch in drained(policy) for part in launch.slices]
    assert parts == [(0, 4), (4, 8), (8, 10)]


def test_discarded_rows_do_not_run():
    policy = scheduler(1)
    first = Task("a", Lane.EXPLAIN, FORWARD, 3)
    policy.add(first)
    policy.add(Task("b", Lane.EXPLAIN, FORWARD, 1))
    policy.next()
    policy.discard(first)
    policy.discard(first)
    assert policy.waiting(Lane.EXPLAIN) == 1
    assert [owners(launch) for launch in drained(policy)] == [["b"]]


def test_discarded_predictions_are_not_due():
    policy = scheduler(1, 4, batch_delay_seconds=1.0)
    first, second = (Task(name, Lane.PREDICT, FORWARD, 1) for name in "ab")
    policy.add(first, 5.0)
    policy.add(second, 5.5)
    policy.discard(first)
    assert policy.due() == 6.5
    policy.discard(second)
    assert policy.due() is None


@pytest.mark.parametrize("lane", Lane)
def test_a_long_queue_is_no_burden(lane):
    policy = scheduler(1)
    for owner in range(20_000):
        policy.add(Task(owner, lane, FORWARD, 1))
    assert [policy.next().slices[0].task.owner for _ in range(20_000)] == list(range(20_000))


def test_padding_only_where_it_pays():
    proportional = {1: 1.0, 2: 2.0, 4: 4.0}
    assert best_size(3, proportional) == 1
    launch_bound = {1: 1.0, 2: 1.01, 4: 1.02}
    assert best_size(3, launch_bound) == 4
    assert best_size(1, launch_bound) == 1
    slightly = {1: 1.0, 2: 1.9, 4: 3.6}
    assert [best_size(count, slightly) for count in (1, 2, 3, 4, 9)] == [1, 2, 2, 4, 4]


def test_the_slice_bounds_a_launch_and_the_smallest_is_the_last_resort():
    costs = {1: 0.010, 4: 0.019, 8: 0.021}
    policy = Scheduler(lambda kind: costs, Policy(slice_seconds=0.02))
    policy.add(Task("a", Lane.EXPLAIN, FORWARD, 100))
    assert policy.next().size == 4
    costs = {2: 0.3, 4: 0.31}
    assert policy.next().size == 2


# ------------------------------------------------------------------------------------ the order of predictions


def test_predictions_of_a_kind_are_served_as_they_came():
    policy = Scheduler(lambda kind: {1: 1e-3, 4: 1.1e-3})
    for owner in range(6):
        policy.add(Task(owner, Lane.PREDICT, FORWARD, 1))
    assert [owners(launch) for launch in drained(policy)] == [[0, 1, 2, 3], [4, 5]]


def test_device_time_had_does_not_set_predictions_back():
    policy = scheduler(1)
    policy.add(Task("large", Lane.PREDICT, FORWARD, 3, Flow(service=5.0)))
    policy.add(Task("small", Lane.PREDICT, FORWARD, 1))
    assert [owners(launch) for launch in drained(policy)] == [["large"]] * 3 + [["small"]]


def test_of_several_kinds_the_oldest_prediction_goes_first():
    policy = Scheduler(lambda kind: {1: 1e-3, 4: 1.1e-3})
    for owner, kind in enumerate((FORWARD, GRADIENT, FORWARD, GRADIENT)):
        policy.add(Task(owner, Lane.PREDICT, kind, 1))
    assert [owners(launch) for launch in drained(policy)] == [[0, 2], [1, 3]]


def test_a_prediction_waits_for_company_until_it_is_due():
    policy = Scheduler(lambda kind: {1: 1e-3, 4: 1.1e-3}, Policy(batch_delay_seconds=0.5))
    policy.add(Task("a", Lane.PREDICT, FORWARD, 1), 10.0)
    policy.add(Task("b", Lane.PREDICT, FORWARD, 1), 10.2)
    assert policy.due() == 10.5
    assert policy.next(10.49) is None
    assert owners(policy.next(10.5)) == ["a", "b"]
    assert policy.due() is None


def test_a_full_batch_does_not_wait():
    policy = Scheduler(lambda kind: {1: 1e-3, 4: 1.1e-3}, Policy(batch_delay_seconds=0.5))
    policy.add(Task("a", Lane.PREDICT, FORWARD, 3), 10.0)
    assert policy.next(10.0) is None
    policy.add(Task("b", Lane.PREDICT, FORWARD, 3), 10.1)
    assert owners(policy.next(10.1)) == ["a", "b"]
    assert policy.next(10.1) is None
    assert policy.due() == 10.6


def test_a_full_batch_does_not_wait_for_an_older_prediction_of_another_kind():
    policy = Scheduler(lambda kind: {1: 1e-3, 4: 1.1e-3}, Policy(batch_delay_seconds=0.5))
    policy.add(Task("a", Lane.PREDICT, GRADIENT, 1), 10.0)
    policy.add(Task("b", Lane.PREDICT, FORWARD, 4), 10.1)
    launch = policy.next(10.1)
    assert launch is not None
    assert owners(launch) == ["b"]
    assert policy.next(10.1) is None
    assert policy.due() == 10.5


def test_no_batch_is_waited_for_that_does_not_pay():
    policy = scheduler(1, 4, batch_delay_seconds=0.5)
    policy.add(Task("a", Lane.PREDICT, FORWARD, 1), 10.0)
    assert policy.next(10.0).size == 1


def test_explanations_but_no_evaluation_go_while_a_prediction_waits_for_company():
    policy = Scheduler(lambda kind: {1: 1e-3, 4: 1.1e-3}, Policy(batch_delay_seconds=0.5, explain_share=0.0))
    policy.add(Task("predict", Lane.PREDICT, FORWARD, 1), 10.0)
    policy.add(Task("explain", Lane.EXPLAIN, FORWARD, 1), 10.0)
    policy.add(Task("measure", Lane.EVALUATE, FORWARD, 1), 10.0)
    assert owners(policy.next(10.1)) == ["explain"]
    assert policy.next(10.2) is None
    assert owners(policy.next(10.5)) == ["predict"]
    assert owners(policy.next(10.5)) == ["measure"]


# ------------------------------------------------------------------------------------ whatever happens

sizes_and_costs = st.dictionaries(st.integers(1, 9), st.floats(1e-4, 0.1), min_size=1, max_size=4)
policies = st.builds(
    Policy,
    slice_seconds=st.sampled_from([1e-3, 0.02, 1.0]),
    explain_share=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    batch_delay_seconds=st.sampled_from([0.0, 0.0, 0.05]),
    evaluate_slice_seconds=st.sampled_from([1e-3, 0.02, 1.0]),
    evaluate_share=st.sampled_from([0.1, 1.0]),
)


class Whatever(RuleBasedStateMachine):
    """Adds, discards, launches and lets time pass in any order; keeps its own books of every row."""

    @initialize(costs=st.fixed_dictionaries(dict.fromkeys(KINDS, sizes_and_costs)), policy=policies)
    def begin(self, costs, policy):
        self.costs = costs
        self.policy = policy
        self.scheduler = Scheduler(lambda kind: self.costs[kind], policy)
        self.now = 0.0
        self.pieces = []
        self.launched = {}
        self.discarded = set()
        self.in_flight = None
        self.last = None
        self.again = {lane: deque() for lane in Lane}
        self.began = 0.0
        self.throttle = IdleThrottle(policy.evaluate_share, policy.evaluate_slice_seconds, policy.slice_seconds)

    def rows_left(self, piece):
        return 0 if piece in self.discarded else piece.row_count - self.launched[piece]

    def rows_waiting(self, lane, kind=None):
        return sum(self.rows_left(piece) for piece in self.pieces if piece.lane is lane and kind in (None, piece.kind))

    def allowed(self, kind, lane):
        costs = self.costs[kind]
        longest = self.throttle.longest(self.began) if lane is Lane.EVALUATE else self.policy.slice_seconds
        allowed = {size: seconds for size, seconds in costs.items() if seconds <= longest}
        return allowed or {min(costs): costs[min(costs)]}

    @rule(
        lane=st.sampled_from(Lane),
        kind=st.sampled_from(KINDS),
        row_count=st.one_of(st.integers(1, 3), st.integers(1, 40)),
        flow=st.one_of(st.none(), st.integers(0, 9)),
    )
    def add(self, lane, kind, row_count, flow):
        piece = Task(len(self.pieces), lane, kind, row_count)
        if flow is not None and flow < len(self.pieces):
            earlier = self.pieces[flow]
            if earlier.lane is lane and not self.rows_left(earlier):
                piece.flow = earlier.flow
        self.pieces.append(piece)
        self.launched[piece] = 0
        self.scheduler.add(piece, self.now)
        if lane is not Lane.EVALUATE:
            self.throttle.others(self.now)
        if lane is Lane.PREDICT:
            self.throttle.predicted(min(self.costs[kind].values()))

    def evaluation_begins(self):
        """When the first piece of evaluation may go on; None if there is none."""
        if self.again[Lane.EVALUATE]:
            return self.throttle.begin(0.0)
        kinds = [kind for kind in KINDS if self.rows_waiting(Lane.EVALUATE, kind)]
        return min((self.throttle.begin(min(self.costs[kind].values())) for kind in kinds), default=None)

    @precondition(lambda self: self.pieces)
    @rule(index=st.integers(0))
    def discard(self, index):
        piece = self.pieces[index % len(self.pieces)]
        self.scheduler.discard(piece)
        self.discarded.add(piece)

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.05]))
    def wait(self, seconds):
        self.now += seconds

    @rule(kind=st.sampled_from(KINDS), costs=sizes_and_costs)
    def change_costs(self, kind, costs):
        self.costs = {**self.costs, kind: costs}

    @precondition(lambda self: self.in_flight is None)
    @rule()
    def launch(self):
        waiting = {lane: self.rows_waiting(lane) + len(self.again[lane]) for lane in Lane}
        launch = self.scheduler.next(self.now)
        if launch is None:
            assert not waiting[Lane.EXPLAIN]
            assert not self.again[Lane.PREDICT]
            assert not waiting[Lane.PREDICT] or self.now < self.scheduler.due()
            assert not waiting[Lane.EVALUATE] or waiting[Lane.PREDICT] or self.now < self.evaluation_begins()
            return
        self.in_flight, self.began = launch, self.now
        self.check_lane(launch, waiting)
        if self.again[launch.lane]:
            assert launch is self.again[launch.lane].popleft()
            return
        self.check_order(launch)
        self.check_size(launch)
        for part in launch.slices:
            piece = part.task
            assert (piece.lane, piece.kind) == (launch.lane, launch.kind)
            assert piece not in self.discarded
            assert part.start == self.launched[piece] < part.stop <= piece.row_count
            self.launched[piece] = part.stop

    def check_lane(self, launch, waiting):
        if launch.lane is Lane.EVALUATE:
            assert not waiting[Lane.PREDICT]
            assert not waiting[Lane.EXPLAIN]
            again = self.again[Lane.EVALUATE]
            assert self.now >= self.throttle.begin(0.0 if again else min(self.costs[launch.kind].values()))
        if launch.lane is Lane.EXPLAIN and not self.policy.explain_share:
            added = [piece.added for piece in self.pieces if piece.lane is Lane.PREDICT and self.rows_left(piece)]
            assert not added or self.now < min(added) + self.policy.batch_delay_seconds
            assert not self.again[Lane.PREDICT]

    def check_order(self, launch):
        if launch.lane is Lane.PREDICT:
            left = [piece for piece in self.pieces if piece.lane is Lane.PREDICT and self.rows_left(piece)]
            first = min(left, key=lambda piece: piece.arrival)
            rates = {size: size / seconds for size, seconds in self.allowed(launch.kind, launch.lane).items()}
            full = self.rows_waiting(Lane.PREDICT, launch.kind) >= max(rates, key=lambda size: (rates[size], -size))
            assert full or self.now >= first.added + self.policy.batch_delay_seconds
            served = [part.task.arrival for part in launch.slices]
            assert served == sorted(served)
            assert full or launch.slices[0].task is first

    def check_size(self, launch):
        allowed = self.allowed(launch.kind, launch.lane)
        rows = self.rows_waiting(launch.lane, launch.kind)
        assert launch.row_count == min(launch.size, rows)
        rate = launch.row_count / allowed[launch.size]
        assert all(min(size, rows) / seconds <= rate for size, seconds in allowed.items())
        assert launch.expected_seconds == self.costs[launch.kind][launch.size]

    @precondition(lambda self: self.in_flight is not None)
    @rule(slower=st.sampled_from([0.3, 1.0, 1.0, 8.0]))
    def ran(self, slower):
        seconds = slower * self.in_flight.expected_seconds
        self.scheduler.ran(self.in_flight, seconds)
        ended = self.began + seconds
        self.now = max(self.now, ended)  # some of it may have passed already
        if self.in_flight.lane is Lane.EVALUATE:
            self.throttle.ran(self.began, seconds)
        else:
            self.throttle.others(ended)
        self.last, self.in_flight = self.in_flight, None

    @precondition(lambda self: self.in_flight is None and self.last is not None)
    @rule()
    def run_half_of_the_last_again(self):
        half = Batch(self.last.kind, self.last.size, self.last.slices[: max(1, len(self.last.slices) // 2)], 0.01)
        self.scheduler.again(half)
        self.again[half.lane].append(half)
        self.last = None

    @invariant()
    def counts_are_right(self):
        if not hasattr(self, "scheduler"):
            return
        for lane in Lane:
            assert self.scheduler.waiting(lane) == self.rows_waiting(lane)
        waiting = [piece for piece in self.pieces if piece.lane is Lane.PREDICT and self.rows_left(piece)]
        if waiting:
            due = min(piece.added for piece in waiting) + self.policy.batch_delay_seconds
        else:
            due = self.evaluation_begins()
        assert self.scheduler.due() == due

    def teardown(self):
        if not hasattr(self, "scheduler"):
            return
        self.now += 1.0
        for _ in range(sum(self.rows_waiting(lane) + len(self.again[lane]) + 1 for lane in Lane)):
            if self.in_flight is not None:
                self.ran(1.0)
            self.now = max(self.now, self.evaluation_begins() or 0.0)
            self.launch()
        assert not any(self.rows_left(piece) for piece in self.pieces)
        assert not any(self.again.values())


TestWhatever = Whatever.TestCase
TestWhatever.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


@settings(max_examples=50, deadline=None)
@given(
    arrivals=st.lists(st.tuples(st.floats(0, 0.1), st.sampled_from(KINDS), st.integers(1, 6)), min_size=1, max_size=20),
    delay=st.sampled_from([0.0, 0.03]),
)
def test_a_predictions_wait_is_bounded_by_the_delay_and_what_came_before(arrivals, delay):
    """With a device that is free whenever it is asked, every prediction is launched by its due time."""
    policy = Scheduler(lambda kind: {1: 1e-9, 4: 2e-9}, Policy(batch_delay_seconds=delay))
    pieces = []
    now = 0.0
    for at, kind, row_count in sorted(arrivals, key=lambda arrival: arrival[0]):
        while (due := policy.due()) is not None and due <= at:
            drained(policy, due)
        now = at
        pieces.append(Task(len(pieces), Lane.PREDICT, kind, row_count))
        policy.add(pieces[-1], now)
        drained(policy, now)
        assert all(now < piece.added + delay for piece in pieces if piece.waiting)
        if not delay:
            assert not any(piece.waiting for piece in pieces)


# ------------------------------------------------------------------------------------ evaluation


def test_evaluation_rests_after_each_launch_to_keep_to_its_share():
    policy = scheduler(1, evaluate_share=0.25)
    policy.add(Task("measure", Lane.EVALUATE, FORWARD, 3))
    launch = policy.next(10.0)
    policy.ran(launch, 0.02)  # a quarter of the 0.08 s until the next
    assert policy.next(10.07) is None
    assert policy.due() == pytest.approx(10.08)
    assert owners(policy.next(10.08)) == ["measure"]


def test_a_rest_of_evaluation_keeps_nobody_else_waiting():
    policy = scheduler(1, evaluate_share=0.1)
    policy.add(Task("measure", Lane.EVALUATE, FORWARD, 2))
    policy.ran(policy.next(10.0), 0.02)
    policy.add(Task("explain", Lane.EXPLAIN, FORWARD, 1), 10.03)
    policy.add(Task("predict", Lane.PREDICT, FORWARD, 1), 10.03)
    assert [owners(launch) for launch in drained(policy, 10.03)] == [["predict"], ["explain"]]
    assert policy.due() == pytest.approx(10.2)


def test_nothing_is_due_for_evaluation_while_a_prediction_waits_for_company():
    policy = Scheduler(lambda kind: {1: 1e-3, 4: 1.1e-3}, Policy(batch_delay_seconds=0.5))
    policy.add(Task("measure", Lane.EVALUATE, FORWARD, 1), 10.0)
    policy.add(Task("predict", Lane.PREDICT, FORWARD, 1), 10.0)
    assert policy.due() == 10.5


def test_nothing_is_due_when_no_evaluation_waits():
    policy = scheduler(1, evaluate_share=0.5)
    policy.add(Task("measure", Lane.EVALUATE, FORWARD, 1))
    policy.ran(policy.next(10.0), 1.0)
    assert policy.due() is None


def test_launches_of_evaluation_are_short_while_others_come_and_as_long_as_anybodys_after_that():
    policy = Scheduler(lambda kind: {1: 1e-3, 4: 3e-3, 16: 1e-2}, Policy(evaluate_slice_seconds=0.005))
    policy.add(Task("measure", Lane.EVALUATE, FORWARD, 40))
    policy.add(Task("explain", Lane.EXPLAIN, FORWARD, 16))
    sizes = [policy.next(0.0)]
    policy.ran(sizes[0], 0.01)
    for now in (1.0, 5.0, 5.02, 6.0):  # others had the device until 0.01
        sizes.append(policy.next(now))
        policy.ran(sizes[-1], sizes[-1].expected_seconds)
    assert [(owners(launch)[0], launch.size) for launch in sizes] == [
        ("explain", 16),
        ("measure", 4),
        ("measure", 4),
        ("measure", 16),
        ("measure", 16),
    ]


def test_what_cannot_be_short_is_rare_while_others_come_and_keeps_nothing_else_waiting():
    costs = {FORWARD: {1: 0.004}, GRADIENT: {1: 0.1}}
    policy = Scheduler(costs.__getitem__, Policy(evaluate_slice_seconds=0.005))
    policy.add(Task("long", Lane.EVALUATE, GRADIENT, 5))
    policy.add(Task("short", Lane.EVALUATE, FORWARD, 100_000))
    ran = {"long": [], "short": []}
    now, until = 0.0, 41.0
    while now < until:
        policy.add(Task("predict", Lane.PREDICT, FORWARD, 1), now)  # ten a second
        end = now + 0.1
        while now < end:
            launch = policy.next(now)
            if launch is None:
                now = min(max(policy.due() or end, now), end)
                continue
            seconds = costs[launch.kind][1]
            policy.ran(launch, seconds)
            if launch.lane is Lane.EVALUATE:
                ran[owners(launch)[0]].append(now)
            now += seconds
    assert len(ran["long"]) == 3  # each 0.1 s is half a percent of 20 s
    assert [later - earlier for earlier, later in pairwise(ran["long"])] == pytest.approx([20.0] * 2, abs=0.2)
    assert len(ran["short"]) * 0.004 > 0.9 * (until - 0.3 - 41 * 10 * 0.004)
    # Nobody comes any more.
    short = policy.next(now + 4.8)
    assert owners(short) == ["short"]
    policy.ran(short, 0.004)
    assert owners(policy.next(now + 5.1)) == ["long"]
