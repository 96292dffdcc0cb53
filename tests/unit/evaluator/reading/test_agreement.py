"""How far explainers agree is the mean correlation of their maps of the same pictures, by what pictures count for."""

import numpy as np
import pytest

from xai_sidecar.evaluator.reading import Reader, Shown
from xai_sidecar.evaluator.records import Frame, MapRecord, SampleKey, SampleRecord
from xai_sidecar.explainers.base import MapStatus

START, END = 1000.0, 1100.0
SHOWN = Shown("m", ["rise", "gradcam", "control/blob"], [], frozenset(), 10.0, single_label=True)
SIDE = 64
BY_BYTES = 5e-3
"""How far a correlation may be off, since maps are kept in 256 steps."""


def coarse(saliency):
    """Means of 16 x 16 cells, another way than the code's."""
    cell = len(saliency) // 16
    return saliency.reshape(16, cell, 16, cell).mean(axis=(1, 3)).ravel()


def put(store, number, maps, *, time=1050.0, weight=1.0, targets=None):
    key = SampleKey(f"r{number}", 0)
    store.add_sample(SampleRecord(key, time, "m", Frame(SIDE, SIDE), 0, 0.5, (0,), weight=weight))
    for name, values in maps.items():
        target = (targets or {}).get(name, 0)
        store.add_map(key, MapRecord(name, target, {}, 1, MapStatus.OK, values.astype(np.float32), 3), [])


def agreement(store, bins=1, shown=SHOWN):
    shapes = Reader(store.database).history(shown, START, END, bins).shapes
    return {key: points for key, points in shapes.items() if key[1].startswith("agreement/")}


@pytest.fixture
def draw():
    generator = np.random.default_rng(5)

    def draw(like=None):
        noise = np.kron(generator.standard_normal((16, 16)), np.ones((SIDE // 16, SIDE // 16)))
        return noise if like is None else like + 0.5 * noise

    return draw


def test_it_is_the_mean_correlation_by_weight(store, draw):
    values, weights, bins = [], [], []
    for number in range(12):
        one = draw()
        other = draw(like=one)
        weight, time = 0.25 * (1 + number % 3), START + 100 * (number + 0.5) / 12
        put(store, number, {"rise": one, "gradcam": 7 * other - 3}, time=time, weight=weight)
        values.append(np.corrcoef(coarse(one), coarse(other))[0, 1])
        weights.append(weight)
        bins.append(number // 6)
    ((key, points),) = agreement(store, bins=2).items()
    assert key == ("rise", "agreement/gradcam")
    assert [point.bin for point in points] == [0, 1]
    for point in points:
        inside = np.array(bins) == point.bin
        right = np.average(np.array(values)[inside], weights=np.array(weights)[inside])
        assert (point.count, point.mean) == (6, pytest.approx(right, abs=BY_BYTES))
        assert 0 < point.half_width < 1


def test_opposite_maps_disagree(store, draw):
    one = draw()
    put(store, 0, {"rise": one, "gradcam": -one})
    ((point,),) = agreement(store).values()
    assert point.mean == pytest.approx(-1, abs=BY_BYTES)


def test_only_maps_of_the_same_class_are_compared(store, draw):
    put(store, 0, {"rise": draw(), "gradcam": draw()}, targets={"gradcam": 1})
    put(store, 1, {"rise": draw()})
    assert not agreement(store)


def test_controls_and_maps_that_are_the_same_all_over_count_for_nothing(store, draw):
    put(store, 0, {"rise": draw(), "control/blob": draw()})
    put(store, 1, {"rise": draw(), "gradcam": np.full((SIDE, SIDE), 0.1)})
    assert not agreement(store)


def test_of_many_pictures_some_at_equal_distances_count(store, draw, monkeypatch):
    monkeypatch.setattr("xai_sidecar.evaluator.reading.agreement.MOST_PICTURES", 5)
    for number in range(40):
        one = draw()
        put(store, number, {"rise": one, "gradcam": one}, time=START + 2.5 * number)
    ((points),) = agreement(store, bins=4).values()
    assert sum(point.count for point in points) == 5
    assert [point.bin for point in points] == [0, 1, 2, 3]
