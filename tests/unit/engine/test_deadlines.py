"""Promises: worked out by hand for a few, and on an imaginary device for many that come at random.

The device runs a row in 10 ms, 8 in 40 ms; what is promised is counted at 5 ms a row.
"""

import itertools
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_sidecar.engine.batch import Flow, Lane, Promise, Task
from xai_sidecar.engine.deadlines import (
    Commitment,
    Return,
    advanced,
    fits,
    granted,
    in_danger,
    time_to_return,
)
from xai_sidecar.engine.scheduler import Policy, Scheduler
from xai_sidecar.engine.work import Kind

FORWARD = Kind("masked_forward")
ROW = 0.005


def commitments(*each):
    return [Commitment(*one) for one in each]


# ------------------------------------------------------------------------------------ by hand


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        ([(10, 4), (12, 5), (20, 8)], [4, 5, 8]),  # 4, 9 and 17 s
        ([(10, 4), (10, 5), (10, 3)], [4, 0, 3]),  # 12 s: the longest gives way
        ([(10, 4), (10, 5, 1), (10, 3)], [4, 1, 3]),  # but for its first map
        ([(10, 4, 1), (10, 5, 1), (10, 4, 1), (10, 4, 1)], [4, 1, 4, 1]),  # 17 s, 13 s, 10 s: of equals the last
        ([(10, 2), (10, 2), (11, 9)], [2, 2, 0]),  # the two are not to miss theirs for it
        ([(10, 9), (11, 2), (11, 2)], [0, 2, 2]),  # the fewest late
        ([(-1, 2, 1), (5, 5)], [1, 0]),  # whose deadline has passed still gets its first map
        ([(1, 2, 2), (2, 1, 1)], [2, 1]),  # what cannot give way does not
    ],
)
def test_as_few_as_possible_are_late(left, seconds):
    assert granted(commitments(*left), 0.0) == seconds


@pytest.mark.parametrize(
    ("left", "urgent", "spare"),
    [
        ([], [], float("inf")),
        ([(10, 5), (20, 12)], [], 1.0),  # 18 s may be used until 20 s, 17 are
        ([(10, 9.5), (20, 1)], [0], 0),
        ([(10, 5), (20, 13.5)], [0, 1], 0),
        ([(10, 5), (20, 13), (30, 9)], [0, 1], 0),  # exactly all that may be used
        ([(10, 0), (20, 18)], [1], 0),
        ([(10, 11), (20, 18)], [1], 0),  # what gives way is in no danger any more
        ([(10, 11, 1), (20, 18)], [0, 1], 0),  # but for its first map
        ([(5, 0), (20, 1)], [], 17),
    ],
)
def test_who_is_in_danger(left, urgent, spare):
    assert in_danger(commitments(*left), 0.0, 0.0) == (urgent, pytest.approx(spare))


def test_the_margin_counts():
    assert in_danger(commitments((10, 5)), 0.0, 4.0) == ([0], 0.0)
    assert in_danger(commitments((10, 5)), 0.0, 3.0) == ([], pytest.approx(1.0))


@pytest.mark.parametrize(
    ("others", "new", "fit"),
    [
        ([], [(1, 100)], True),  # an idle device takes any
        ([(5, 0)], [(1, 100)], True),
        ([(30, 20)], [(30, 7)], True),  # 27 of 30 s
        ([(30, 20)], [(30, 7.01)], False),
        ([(30, 20)], [(10, 7)], True),
        ([(30, 20)], [(10, 7.5)], False),  # it would be in time, but the other one late
        ([(30, 20)], [(60, 34)], True),
        ([(30, 20)], [(60, 34.5)], False),
        ([(10, 20)], [(30, 17)], True),  # the other one is late in any case, and ends at 10 s
        ([(10, 20)], [(30, 17.5)], False),
        ([(30, 20)], [(30, 4), (30, 3)], True),  # of one request
        ([(30, 20)], [(30, 4), (30, 4)], False),
    ],
)
def test_what_fits(others, new, fit):
    assert fits(commitments(*others), commitments(*new), 0.0) is fit


def test_what_is_left_later():
    of_two = commitments((10, 6), (40, 10))
    alone = [each.seconds for each in advanced(of_two, 0.0, 5.0, alone=True)]
    assert alone == pytest.approx([4.5, 7.0])  # no more than can be done in time, and 11.5 s in all
    beside = [each.seconds for each in advanced(of_two, 0.0, 5.0, alone=False)]
    assert beside == pytest.approx([4.5, 11.5])  # the first may have had all of the time
    assert [each.seconds for each in advanced(of_two, 0.0, 30.0, alone=True)] == [0, 0]
    assert [each.seconds for each in advanced(of_two, 0.0, 30.0, alone=False)] == [0, pytest.approx(9.0)]


@pytest.mark.parametrize(
    ("others", "new", "alone", "time"),
    [
        ([(30, 20)], [(30, 7)], True, 0),
        ([(30, 20)], [(30, 16)], True, 10),  # 11 s of the other one are left
        ([(30, 20)], [(30, 16)], False, 17.7),  # of the time until 30 s, nine tenths are what it may still need
        ([(30, 20)], [(10, 8.5)], True, 21.6),  # 0.5 s of the other one are left: 19.5 s at nine tenths
        ([(30, 20)], [(30, 28)], True, 22.2),  # as soon as there is no other
    ],
)
def test_when_to_come_back(others, new, alone, time):
    found = time_to_return(commitments(*others), commitments(*new), 0.0, alone=alone)
    assert found == pytest.approx(time, abs=0.3)
    assert found >= time - 1e-9


def test_each_is_told_another_time():
    """Each wants 8 s within 30 s, beside 25 s: 6 s of these have to be done first."""
    others, new = commitments((30, 25)), commitments((30, 8))
    expected = []
    for _ in range(5):
        expected.append(Return(time_to_return(others, new, 0.0, expected, alone=True), tuple(new)))
    times = [each.at for each in expected]
    assert times[0] == pytest.approx(6 / 0.9, abs=0.3)
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == pytest.approx([8 / 0.9] * 4, abs=0.3)


# ------------------------------------------------------------------------------------ on an imaginary device


class Device:
    """A device, its clock, and what runs on it: explanations that ask for some rows at a time."""

    def __init__(self, factor=1.0):
        self.scheduler = Scheduler(lambda kind: {1: 0.01, 8: 0.04}, Policy(slice_seconds=0.05), lambda *_: factor * ROW)
        self.now = 0.0
        self.factor = factor
        self.jobs = []
        self.most_running = 0

    def begin(self, rows, by=float("inf"), chunk=32, first=8):
        promise = None if by == float("inf") else Promise(by, rows, first)
        job = {"flow": Flow(promise=promise), "left": rows, "chunk": chunk, "by": by, "end": None, "served": self.now}
        job["waited"] = 0.0
        self.jobs.append(job)
        self.ask(job)
        return job

    def ask(self, job):
        count = min(job["chunk"], job["left"])
        job["left"] -= count
        self.scheduler.add(Task(job, Lane.EXPLAIN, FORWARD, count, job["flow"]), self.now)

    def run(self, until):
        while self.now < until and self.batch():
            pass
        self.now = max(self.now, until)

    def batch(self):
        self.most_running = max(self.most_running, len(self.running))
        self.expire()
        batch = self.scheduler.next(self.now)
        if batch is None:
            return False
        seconds = self.factor * batch.expected_seconds
        self.now += seconds
        self.scheduler.ran(batch, seconds)
        for part in batch.slices:
            job = part.task.owner
            job["waited"], job["served"] = max(job["waited"], self.now - job["served"]), self.now
            if part.stop == part.task.row_count and job["end"] is None:
                if job["left"]:
                    self.ask(job)
                else:
                    self.end(job)
        return True

    def expire(self):
        """Ends what has not been done in time, as the engine does."""
        for job in self.running:
            if job["by"] <= self.now:
                self.scheduler.discard(job["flow"].task)
                self.end(job, late=True)

    def end(self, job, late=False):
        job["end"], job["late"] = self.now, late
        self.scheduler.leave(job["flow"])

    @property
    def running(self):
        return [job for job in self.jobs if job["end"] is None]

    def commitments(self):
        self.expire()
        left = [(job["by"], job["flow"]) for job in self.running if job["flow"].promise]
        return [Commitment(by, ROW * max(0, flow.promise.rows - flow.rows)) for by, flow in left]

    def alone(self):
        return not any(job["flow"].promise is None for job in self.running)


arrivals = st.lists(
    st.tuples(
        st.floats(0, 3),  # seconds after the last one
        st.integers(25, 190).map(lambda batches: 8 * batches),  # rows: 1 to 7.6 s
        st.one_of(st.none(), st.floats(1.2, 6)),  # the deadline, over what it takes alone; None for none
        st.sampled_from([8, 32, 104]),
    ),
    min_size=2,
    max_size=14,
)


@settings(max_examples=30, deadline=None)
@given(arrivals=arrivals)
def test_what_is_accepted_is_finished(arrivals):
    """As long as rows take what was promised; whatever else runs, and whoever comes without a deadline."""
    device = Device()
    for after, rows, tightness, chunk in arrivals:
        device.run(device.now + after)
        if tightness is None:
            device.begin(rows, chunk=chunk)
            continue
        by = device.now + tightness * rows * ROW + 0.2
        if fits(device.commitments(), [Commitment(by - 0.1, rows * ROW)], device.now):
            device.begin(rows, by, chunk=chunk)
    device.run(1000)
    assert not device.running
    assert not any(job["late"] for job in device.jobs)


@settings(max_examples=30, deadline=None)
@given(arrivals=arrivals, wanted=st.integers(200, 1500), tightness=st.floats(1.0, 3))
def test_who_comes_back_when_told_to_is_accepted(arrivals, wanted, tightness):
    device = Device()
    for after, rows, tight, chunk in arrivals:
        device.run(device.now + min(after, 0.2))
        by = float("inf") if tight is None else device.now + tight * rows * ROW
        if tight is None or fits(device.commitments(), [Commitment(by, rows * ROW)], device.now):
            device.begin(rows, by, chunk=chunk)
    allowed = tightness * wanted * ROW
    new = [Commitment(allowed, wanted * ROW)]
    now = device.now
    others, alone = device.commitments(), device.alone()
    time = time_to_return(others, new, now, alone=alone)
    assert (time == now) == fits(others, [Commitment(now + allowed, wanted * ROW)], now)
    # A tenth of a second is the shortest that anybody is told.
    device.run(max(time, now + 0.1) if time > now else time)
    assert fits(device.commitments(), [Commitment(device.now + allowed, wanted * ROW)], device.now)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 6))
def test_nobody_starves(seed, count):
    """Some without a deadline beside promises that take all that may be promised, for a minute."""
    randomness = Random(seed)
    device = Device()
    waiting = [device.begin(10**6, chunk=32) for _ in range(count)]
    while device.now < 60:
        rows = randomness.randint(50, 1000)
        by = device.now + randomness.uniform(1.2, 4) * rows * ROW
        if fits(device.commitments(), [Commitment(by, rows * ROW)], device.now):
            device.begin(rows, by)
        device.run(device.now + randomness.uniform(0.0, 0.5))
    for job in waiting:
        # Each has a batch of 40 ms in turn with the others, in a tenth of the time; and newcomers have one at once.
        assert job["waited"] <= 2 * device.most_running * 0.04 / 0.1
        assert job["flow"].rows * ROW >= 0.9 * 60 * 0.1 / device.most_running


def test_a_short_one_does_not_stand_behind_promises_in_danger():
    """Four that take all of 30 s less a tenth; one row with as much time comes last, and is done at once."""
    device = Device()
    for _ in range(4):
        device.begin(1350, 30.0)  # 6.75 s
    device.run(1.0)
    short = device.begin(1, 31.0)
    device.run(32.0)
    assert short["end"] <= 1.0 + 0.01 / 0.1 + 0.2
    assert [job["late"] for job in device.jobs] == [False] * 5


def test_turns_are_even_while_nobody_is_in_danger():
    device = Device()
    early, late, none = device.begin(10_000, 200.0), device.begin(10_000, 1000.0), device.begin(10_000)
    device.run(30.0)
    rows = [job["flow"].rows for job in (early, late, none)]
    assert max(rows) - min(rows) <= 16
    device.run(200.1)
    assert not early["late"]
    assert none["flow"].rows >= 0.1 * 200 / ROW / 3


def test_who_is_in_danger_goes_first_and_the_earliest_of_them():
    """9 s of work for 10 s, and 8.9 s more for 20 s: both may have nine tenths of the time."""
    device = Device()
    second, first = device.begin(1780, 20.0), device.begin(1780, 10.0)
    device.run(5.0)
    assert first["flow"].rows >= 0.9 * 5 / ROW - 16
    device.run(20.1)
    assert not first["late"]
    assert not second["late"]


def test_the_fewest_are_late_when_launches_become_slower():
    """Four of 5 s in 24 s, when all takes a third longer: one gives way, and gets what is left."""
    device = Device(4 / 3)
    for _ in range(4):
        device.begin(1000, 24.0)
    device.run(24.1)
    done = sorted(job["flow"].rows for job in device.jobs)
    assert done[1:] == [1000] * 3
    assert 24 / (4 / 3) / ROW - 3000 - 32 <= done[0] < 1000


def test_a_first_map_is_had_even_by_what_gives_way():
    device = Device()
    device.begin(4000, 10.0, first=8)  # twice what can be done
    for _ in range(3):
        device.begin(500, 10.0)
    device.run(5.0)
    assert device.jobs[0]["flow"].rows >= 8
    device.run(10.1)
    assert [job["late"] for job in device.jobs] == [True, False, False, False]


def test_what_has_ended_is_in_nobodys_way():
    device = Device()
    gone = device.begin(1800, 10.0)
    device.run(0.5)
    device.scheduler.discard(gone["flow"].task)
    device.end(gone)
    even = device.begin(1000), device.begin(1000)
    device.run(2.0)
    rows = [job["flow"].rows for job in even]
    assert abs(rows[0] - rows[1]) <= 8
    assert sum(rows) >= 1.4 / ROW
