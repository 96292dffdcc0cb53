"""Which statistics of which maps are followed, and what the whole server's level means for each of them."""

import numpy as np
import pytest

from xai_sidecar.config import DriftConfig
from xai_sidecar.evaluator.drift.tracker import OF_ONE, DriftTracker, StreamKey
from xai_sidecar.evaluator.drift.two_sample import least_steps

SIZE = 20
SETTINGS = DriftConfig(window=SIZE, false_alarms=0.01)
CLASSES = {0: "cat", 3: "dog"}


def blob(row, column, generator, spread=4.0, side=32):
    """A Gaussian about a place, with a little noise."""
    down, across = ((np.arange(side) - middle) ** 2 for middle in (row, column))
    noise = 0.05 * generator.standard_normal((side, side))
    return (np.exp(-(down[:, np.newaxis] + across) / (2 * spread**2)) + noise).astype(np.float32)


def middle(generator):
    return blob(*generator.uniform(12, 20, 2), generator)


def corner(generator):
    return blob(4, 4, generator, 2.0)


def fed(tracker, make, count, target=0, source="requests", names=("a",), seed=0, counted=None):
    generator = np.random.default_rng(seed)
    for _ in range(count):
        maps = {name: make(generator) for name in names}
        tracker.add(source, target, maps, frozenset(names) if counted is None else frozenset(counted))
    return dict(tracker.comparisons())


def test_what_moves_to_the_corner_is_noticed_by_the_border():
    tracker = DriftTracker(["a"], {}, SETTINGS)
    before = fed(tracker, middle, 4 * SIZE)
    assert set(before) == {StreamKey("requests", "a", name) for name in OF_ONE}
    assert not any(each.drifted for each in before.values())
    after = fed(tracker, corner, SIZE)
    border = after["requests", "a", "border", ""]
    assert border.drifted
    assert border.reference < 0.05 < 0.5 < border.current
    centre = after["requests", "a", "centre_x", ""]
    assert centre.reference == pytest.approx(0.5, abs=0.05)
    assert centre.current < 0.3
    assert after["requests", "a", "typicality", ""].drifted


def test_a_drift_of_one_class_is_named():
    """It makes 1 in 8 pictures: too few to show among all."""
    tracker = DriftTracker(["a"], CLASSES, SETTINGS)
    fed(tracker, middle, 14 * SIZE, target=1)
    fed(tracker, middle, 2 * SIZE, target=3)
    found = fed(tracker, middle, 14 * SIZE, target=1)
    assert all(key.class_name == "" and not each.drifted for key, each in found.items())
    fed(tracker, corner, SIZE + 5, target=3)
    found = fed(tracker, middle, 7 * SIZE, target=1)
    assert found["requests", "a", "border", "dog"].drifted
    assert not found["requests", "a", "border", ""].drifted
    assert {key.class_name for key in found} == {"", "dog"}


def test_typicality_is_the_correlation_with_the_mean_map_of_the_class():
    """Maps of one class lie on the left and of another on the right; of a third there were too few to learn from."""
    tracker = DriftTracker(["a"], {}, SETTINGS)
    generator = np.random.default_rng(0)
    sides = {0: 8, 1: 24}

    def add(target, column):
        tracker.add("requests", target, {"a": blob(16, column, generator)}, frozenset("a"))

    for number in range(10):  # what is learnt from
        add(number % 2, sides[number % 2])
    for number in range(2 * SIZE):
        add(number % 2, sides[number % 2])
    found = dict(tracker.comparisons())["requests", "a", "typicality", ""]
    assert found.reference > 0.9
    assert found.current > 0.9
    for number in range(SIZE):
        add(number % 2, sides[1 - number % 2])
    assert dict(tracker.comparisons())["requests", "a", "typicality", ""].current < 0
    for _ in range(SIZE):
        add(2, 8)  # half of all that was learnt lies here
    assert 0.4 < dict(tracker.comparisons())["requests", "a", "typicality", ""].current < 0.9


def test_agreement_is_of_pairs_on_the_same_picture():
    tracker = DriftTracker(["a", "b"], CLASSES, SETTINGS)
    generator = np.random.default_rng(0)
    for number in range(2 * SIZE):
        saliency = middle(generator)
        other = -saliency if number >= SIZE else saliency
        tracker.add("samples", 0, {"b": other, "a": saliency, "unknown": saliency}, frozenset("b"))
    found = dict(tracker.comparisons())
    both = found["samples", "a", "agreement/b", ""]
    assert (both.reference, both.current) == (pytest.approx(1), pytest.approx(-1))
    assert both.drifted
    assert {key.explainer for key in found if "/" not in key.statistic} == {"b"}, "what does not count by itself"


def test_maps_without_a_shape_do_not_count():
    tracker = DriftTracker(["a", "b"], {}, SETTINGS)
    assert fed(tracker, lambda generator: np.ones((8, 8), np.float32), 3 * SIZE, names=("a", "b")) == {}


def test_sources_are_not_compared_with_each_other():
    tracker = DriftTracker(["a"], {}, SETTINGS)
    fed(tracker, middle, 4 * SIZE)
    found = fed(tracker, corner, 4 * SIZE, source="samples")
    assert {key.source for key in found} == {"requests", "samples"}
    assert not any(each.drifted for each in found.values())


@pytest.mark.parametrize(("classes", "half"), [({}, 1), (CLASSES, 2)])
def test_the_level_is_shared_among_all_streams(classes, half):
    """Two sources, two explainers of five statistics each, and a pair; half of it where classes have streams, too."""
    found = fed(DriftTracker(["a", "b"], classes, SETTINGS), middle, 2 * SIZE, names=("a", "b"))
    level = 0.01 / half / (2 * (2 * 5 + 1))
    assert {each.allowed for key, each in found.items() if "typ" not in key.statistic} == {
        least_steps(SIZE, level / 2) / SIZE
    }


def test_a_server_that_does_not_change_keeps_quiet():
    """All statistics of two explainers and two classes together: with 5 % for each of 12 servers, none alarms here."""
    for seed in range(12):
        tracker = DriftTracker(["a", "b"], CLASSES, DriftConfig(window=SIZE, false_alarms=0.05))
        generator = np.random.default_rng(seed)
        for _ in range(10 * SIZE):
            maps = {name: blob(*generator.uniform(4, 12, 2), generator, 2.0, 16) for name in ("a", "b")}
            tracker.add("requests", int(generator.choice([0, 3])), maps, frozenset("ab"))
        assert not any(each.drifted for _, each in tracker.comparisons())
