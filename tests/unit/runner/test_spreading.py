"""Spreading pictures over workers, on a cluster that is made up: who has what, who dies, and what comes of it."""

from collections import Counter, deque
from types import SimpleNamespace

import pytest

from xai_sidecar import __version__
from xai_sidecar.errors import ConfigError, DeviceLostError
from xai_sidecar.runner.data import DataItem
from xai_sidecar.runner.outcome import PictureOutcome
from xai_sidecar.runner.spread.cluster import Failed, Lost, Measured, Ready, WorkerFacts
from xai_sidecar.runner.spread.room import Room, cpus_each, room_for
from xai_sidecar.runner.spread.spreading import Spreader


class MadeUp:
    """A cluster on which every worker is done with one picture a step, the one that it has had for longest.

    Args:
        killing: Pictures that kill the worker that measures them.
        dying: The steps at which workers die, by worker.
        begun: Pictures that a worker works on at a time: those, a stopped worker still measures.
        stillborn: Whether all workers die while they start.
    """

    def __init__(self, killing=(), dying=(), begun=2, stillborn=False):
        self.killing, self.dying, self.begun, self.stillborn = set(killing), dict(dying), begun, stillborn
        self.queues, self.waiting = {}, []
        self.measured, self.submitted, self.most = Counter(), Counter(), Counter()
        self.started = self.step = 0
        self.facts = lambda worker: WorkerFacts(SimpleNamespace(version="m"), __version__, f"machine {worker}")

    def start(self):
        self.started += 1
        self.waiting.append(self.started)
        return self.started

    def submit(self, worker, item):
        self.queues[worker].append(item.name)
        self.submitted[item.name] += 1
        self.most[worker] = max(self.most[worker], len(self.queues[worker]))

    def stop(self, worker):
        names = self.queues[worker]
        self.dropped = [names.pop() for _ in range(len(names) - self.begun)]
        self.later = [Measured(worker, name, None) for name in self.dropped]

    def remove(self, worker):
        self.queues.pop(worker, None)

    def events(self, seconds):
        self.step += 1
        found, self.later = getattr(self, "later", []), []
        for worker in self.waiting:
            if self.stillborn:
                found.append(Lost(worker, "It was stillborn."))
            else:
                self.queues[worker] = deque()
                found.append(Ready(worker, self.facts(worker)))
        self.waiting = []
        for worker, names in list(self.queues.items()):
            if self.dying.get(worker) == self.step:
                found.append(Lost(worker, "Somebody killed it."))
                del self.queues[worker]
            elif names and names[0] in self.killing:
                found.append(Lost(worker, "The picture killed it."))
                del self.queues[worker]
            elif names:
                name = names.popleft()
                self.measured[name] += 1
                found.append(Measured(worker, name, PictureOutcome(name)))
        return found


def items(count):
    return [DataItem(f"{number:03d}", b"") for number in range(count)]


def spread(cluster, count, pictures, stop=lambda: False, report=lambda line: None):
    """What was taken, and whether it was stopped."""
    spreader, taken = Spreader(cluster, count, report), []
    spreader.start()
    return taken, spreader.run(iter(pictures), taken.append, stop)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("pictures", [0, 1, 12, 100])
def test_every_picture_is_measured_once(count, pictures):
    cluster = MadeUp()
    taken, stopped = spread(cluster, count, items(pictures))
    assert sorted(each.name for each in taken) == [each.name for each in items(pictures)]
    assert not stopped
    assert cluster.started == count
    assert set(cluster.measured.values()) <= {1}


def test_near_the_end_every_worker_has_its_share():
    cluster = MadeUp()
    spread(cluster, 3, items(12))
    assert set(cluster.most.values()) == {4}
    # So it is where the first worker is ready long before the others.
    cluster, slow = MadeUp(), []
    start = cluster.start
    cluster.start = lambda: start() if not cluster.started else slow.append(0) or 100 + len(slow)
    taken, _ = spread(cluster, 3, items(12))
    assert len(taken) == 12
    assert cluster.most[1] == 4
    # And with many pictures, a worker has enough to go on with.
    cluster = MadeUp()
    spread(cluster, 2, items(200))
    assert set(cluster.most.values()) == {24}


@pytest.mark.parametrize("dying", [{1: 6}, {1: 6, 2: 6}, {1: 3, 2: 9, 3: 12, 4: 15}])
def test_what_a_dead_worker_had_goes_to_others(dying):
    cluster, lines = MadeUp(dying=dying), []
    taken, _ = spread(cluster, 2, items(60), report=lines.append)
    assert sorted(each.name for each in taken) == [each.name for each in items(60)]
    assert not any(each.problem for each in taken)
    assert set(cluster.measured.values()) == {1}  # what was done is not done again
    assert cluster.started == 2 + len(dying)
    assert sum(line.startswith("lost: machine") for line in lines) == len(dying)
    again = sum(count - 1 for count in cluster.submitted.values())
    assert 0 < again <= 24 * len(dying)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_picture_that_kills_its_worker_is_given_up_and_costs_no_other_one(count):
    cluster = MadeUp(killing=["007", "041"])
    taken, _ = spread(cluster, count, items(60))
    assert sorted(each.name for each in taken) == [each.name for each in items(60)]
    problems = {each.name: each.problem for each in taken if each.problem}
    assert set(problems) == {"007", "041"}
    for problem in problems.values():
        assert problem == "The actor that measured it died, 3 times. The last time: The picture killed it."
    assert count + 4 <= cluster.started <= count + 6  # of two that die together, one is innocent


def test_workers_that_never_live_are_not_started_for_ever():
    cluster = MadeUp(stillborn=True)
    with pytest.raises(DeviceLostError, match="It was stillborn"):
        spread(cluster, 2, items(5))
    assert cluster.started <= 2 + 2 * 4


def test_what_no_other_worker_could_do_ends_it():
    cluster = MadeUp()
    cluster.events = lambda seconds: [Failed(1, ConfigError("there is no file net.onnx.", field="model.onnx"))]
    with pytest.raises(ConfigError, match=r"there is no file net\.onnx"):
        spread(cluster, 2, items(5))


def test_stopped_it_ends_once_what_was_begun_is_measured():
    cluster = MadeUp(begun=3)
    taken, stopped = spread(cluster, 1, items(100), stop=lambda: cluster.step > 10)
    assert stopped
    assert len(cluster.dropped) > 0
    assert sum(cluster.measured.values()) == len(taken) < 30
    assert not {each.name for each in taken} & set(cluster.dropped)


def test_stopped_before_any_worker_is_ready():
    with pytest.raises(KeyboardInterrupt):
        Spreader(MadeUp(), 2).start(lambda: True)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            WorkerFacts(SimpleNamespace(version="other"), __version__, "b"),
            "b has another model than the others",
        ),
        (WorkerFacts(SimpleNamespace(version="m"), "0.0.1", "b"), r"b has xai-sidecar 0\.0\.1, and here it is"),
    ],
)
def test_machines_that_would_give_other_scores_are_refused(facts, words):
    cluster = MadeUp()
    same = cluster.facts
    cluster.facts = lambda worker: facts if worker == 2 else same(worker)
    with pytest.raises(ConfigError, match=words):
        spread(cluster, 2, items(5))


def test_files_travel_as_bytes_and_those_that_cannot_be_opened_stay(tmp_path):
    (tmp_path / "there").write_bytes(b"content")
    cluster, seen = MadeUp(), []
    submit = cluster.submit
    cluster.submit = lambda worker, item: seen.append(item.content) or submit(worker, item)
    pictures = [DataItem(name, tmp_path / name) for name in ("there", "gone")]
    taken, _ = spread(cluster, 1, pictures)
    assert seen == [b"content"]
    assert {each.name: each.problem for each in taken} == {
        "there": "",
        "gone": "It cannot be opened: No such file or directory.",
    }


@pytest.mark.parametrize(
    ("machines", "count", "each"),
    [([2], 1, 2), ([2], 2, 1), ([2], 3, 1), ([8, 8], 2, 8), ([8, 8], 3, 4), ([3, 5], 2, 3), ([64], 5, 12)],
)
def test_cpus_are_divided_so_that_all_find_room(machines, count, each):
    assert cpus_each(machines, count) == each


def test_what_a_cluster_has_room_for():
    head, large, small = {"CPU": 0.0}, {"CPU": 32.0, "GPU": 8.0}, {"CPU": 4.0, "NPU": 2.0}
    assert room_for("cpu", [head, large, small], None) == Room(2, 16)
    assert room_for("gpu:3", [head, large, small], None) == Room(8, 4, "GPU")
    assert room_for("ascend", [head, large, small], None) == Room(2, 2, "NPU")
    assert room_for("gpu", [large, large], 3) == Room(3, 4, "GPU")
    with pytest.raises(ConfigError, match="no machine of the cluster has a GPU"):
        room_for("gpu", [head, small], None)
