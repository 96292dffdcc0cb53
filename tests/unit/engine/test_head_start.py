"""Head starts: those in a hurry go first, pay for it later, and cannot keep the others waiting for ever."""

from xai_sidecar.engine.batch import Flow, Lane, Task
from xai_sidecar.engine.scheduler import Scheduler
from xai_sidecar.engine.work import Kind

FORWARD = Kind("forward")


class Shared:
    """A lane of jobs that always have more to do, a row a launch of 10 ms."""

    def __init__(self):
        self.scheduler = Scheduler(lambda kind: {1: 0.01})
        self.turns = {}
        self.order = []

    def add(self, name, head_start=0.0):
        turn = self.turns.setdefault(name, Flow(head_start=head_start))
        self.scheduler.add(Task(name, Lane.EXPLAIN, FORWARD, 1, turn))

    def run(self, count, leaves=()):
        for _ in range(count):
            launch = self.scheduler.next()
            self.scheduler.ran(launch, 0.01)
            name = launch.slices[0].task.owner
            self.order.append(name)
            if name not in leaves:
                self.add(name)


def test_who_has_a_head_start_goes_first_and_waits_later():
    shared = Shared()
    for name in "abcdefgh":
        shared.add(name)
    shared.run(20)
    shared.add("hurried", head_start=0.03)
    shared.run(200)
    assert shared.order[20:23] == ["hurried"] * 3
    # What it was lent counts: in the end all have had the same.
    counts = [shared.order[20:].count(name) for name in ("hurried", *"abcdefgh")]
    assert max(counts) - min(counts) <= 3
    assert "hurried" not in shared.order[24:40]


def test_without_one_it_waits_for_its_turn():
    shared = Shared()
    for name in "abcdefgh":
        shared.add(name)
    shared.run(20)
    shared.add("other")
    shared.run(40)
    assert shared.order[20:23].count("other") <= 1


def test_an_endless_stream_in_a_hurry_leaves_half_to_the_others():
    """Each wants three launches, and goes; there is always another one."""
    shared = Shared()
    for name in "ab":
        shared.add(name)
    shared.run(10)
    for number in range(300):
        name = f"hurried {number}"
        shared.add(name, head_start=0.03)
        shared.run(1)
        done = shared.order.count(name)
        while done < 3:
            shared.run(1, leaves={name} if done == 2 else ())
            done = shared.order.count(name)
    late = shared.order[-400:]
    assert sum(name in "ab" for name in late) >= 0.3 * len(late)


def test_two_in_a_hurry_go_one_after_the_other():
    shared = Shared()
    for name in "abcd":
        shared.add(name)
    shared.run(12)
    for name in ("first", "second"):
        shared.add(name, head_start=0.02)
    shared.run(4)
    assert sorted(shared.order[12:]) == ["first", "first", "second", "second"]
