"""Which pictures of a data set are missing, and how many there are."""

from types import SimpleNamespace

import numpy as np
import pytest

from xai_sidecar.config import RunConfig
from xai_sidecar.evaluator.records import SampleKey, SampleState
from xai_sidecar.runner.data import DataItem, Labels
from xai_sidecar.runner.data.callables import IterableData
from xai_sidecar.runner.data.item import ListedData
from xai_sidecar.runner.gathering import Gatherer
from xai_sidecar.runner.outcome import PictureOutcome


def gathering(*known, **options):
    store = SimpleNamespace(states=lambda: [(SampleKey(name, 0), state) for name, state in known])
    return Gatherer(store, SimpleNamespace(), RunConfig(**options), lambda counts: None)


def totals(gatherer, data):
    """How many pictures there are said to be, as each missing one is given out, and in the end."""
    return [gatherer.counts.total for _ in gatherer.missing(data)], gatherer.counts.total


class Batches:
    """As MindSpore's data set: its size is that of batches."""

    def __init__(self, sizes):
        self._sizes = sizes

    def get_dataset_size(self):
        return len(self._sizes)

    def create_tuple_iterator(self, num_epochs, output_numpy):
        return ((np.zeros((size, 3, 4, 4), np.float32), np.zeros(size, np.int32)) for size in self._sizes)

    def __iter__(self):
        raise AssertionError("it has an iterator of its own")


@pytest.mark.parametrize("rows", [Batches, lambda sizes: list(Batches(sizes).create_tuple_iterator(1, True))])
def test_of_batches_pictures_are_counted(rows):
    def data(*sizes):
        return IterableData(rows(sizes), Labels((), 4), "data")

    assert totals(gathering(), data(4, 4, 4)) == ([12] * 12, 12)
    assert totals(gathering(), data(4, 4, 2)) == ([12] * 10, 10)  # the last one is known when it is there
    assert totals(gathering(), data(1, 1)) == ([2, 2], 2)
    assert totals(gathering(limit=5), data(4, 4)) == ([5] * 5, 5)
    assert totals(gathering(limit=50), data(4, 4)) == ([8] * 8, 8)


def test_of_an_iterable_that_does_not_say_its_length():
    def rows():
        return ((np.zeros((3, 4, 4), np.float32),) for _ in range(3))

    assert totals(gathering(), IterableData(rows(), Labels((), 4), "data")) == ([0, 0, 0], 3)
    assert totals(gathering(limit=2), IterableData(rows(), Labels((), 4), "data")) == ([2, 2], 2)


def test_what_is_measured_is_not_missing_and_what_is_listed_twice_counts_once():
    names = ["a", "b", "a", "c", "b", "d"]
    data = ListedData("names", [DataItem(name, b"") for name in names])
    known = [("a", SampleState.SCORED), ("b", SampleState.PENDING), ("d", SampleState.FAILED)]
    gatherer = gathering(*known)
    assert [item.name for item in gatherer.missing(data)] == ["b", "c"]
    assert (gatherer.counts.total, gatherer.counts.known) == (4, 2)
    for name in ("c", "b"):
        gatherer.take(PictureOutcome(name, problem=f"{name} is broken."))
    counts = gatherer.end(interrupted=False)
    assert counts.skipped == [("b", "b is broken."), ("c", "c is broken.")]  # in the order of the data
    assert counts.notes == [
        "a is listed more than once, and counts once.",
        "b is listed more than once, and counts once.",
    ]


def test_another_seed_measures_anew():
    data = ListedData("names", [DataItem("a", b"")])
    assert [item.name for item in gathering(("a", SampleState.SCORED), seed=2).missing(data)] == ["a"]
    assert not list(gathering(("a#2", SampleState.SCORED), seed=2).missing(data))
