"""What is kept of samples for those who look at them: in small forms, and within bounds of their own."""

from dataclasses import replace

import numpy as np
import pytest

from xai_sidecar.errors import StoreError
from xai_sidecar.evaluator.reading import Order, Reader, SampleFilter
from xai_sidecar.evaluator.records import GroundTruth, SampleKey, SampleState
from xai_sidecar.evaluator.store import Change, DetailBounds, Outcome, Store, TopClass
from xai_sidecar.evaluator.store.changes import MOST_CHANGED, Changes
from xai_sidecar.evaluator.store.outcomes import outcomes_of
from xai_sidecar.evaluator.store.small import (
    pack_classes,
    pack_curve,
    small_map,
    top_classes,
    unpack_classes,
    unpack_curve,
)
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.metrics.base import MaskingCurve

DAY = 86_400.0


@pytest.fixture
def bounded(url):
    """A store with room for three maps of 64 x 64 pixels, and for pictures of 1000 bytes for a day."""
    bounds = DetailBounds(map_bytes=3 * 64 * 64 * 4, picture_bytes=1000, picture_seconds=DAY)
    store = Store.open(url, max_bytes=1 << 30, retention_seconds=1e12, bounds=bounds)
    yield store
    store.close()


def test_a_small_map_has_the_means_of_parts():
    values = np.arange(64 * 48, dtype=np.float32).reshape(64, 48)
    small = small_map(values, side=4)
    means = values.reshape(4, 16, 4, 12).mean((1, 3))
    assert (small.height, small.width, small.minimum, small.maximum) == (4, 4, means.min(), means.max())
    np.testing.assert_allclose(small.array(), means, atol=(means.max() - means.min()) / 255 / 2 * 1.01)


def test_a_map_that_is_smaller_stays_as_it_is():
    values = np.array([[-1.0, 0.0, 0.5], [1.0, 0.25, -0.5]], np.float32)
    np.testing.assert_allclose(small_map(values).array(), values, atol=1 / 255)


def test_a_constant_map_stays_constant_and_one_that_is_not_finite_has_no_small_one():
    assert (small_map(np.full((40, 40), 3.5, np.float32)).array() == 3.5).all()
    assert small_map(np.array([[np.nan, 1.0]], np.float32)) is None
    assert small_map(np.array([[np.inf, 1.0]], np.float32)) is None


def test_curves_come_back_right_to_half_a_thousandth():
    counts, heights = np.array([0, 7, 50_176]), np.array([0.98765, 1 / 3, 0.0])
    packed = pack_curve(counts, heights)
    assert len(packed[1]) == 6
    back = unpack_curve(*packed)
    np.testing.assert_array_equal(back[0], counts)
    np.testing.assert_allclose(back[1], heights, atol=5e-4)
    with pytest.raises(StoreError, match="damaged"):
        unpack_curve(packed[0][:-4], packed[1])
    with pytest.raises(StoreError, match="damaged"):
        unpack_curve(packed[0][:-1], packed[1])


def test_the_most_probable_classes_come_back():
    logits = np.array([0.5, 3.0, -1.0, 3.0], np.float32)
    found = top_classes(logits, np.array([0.1, 0.4, 0.05, 0.45], np.float32))
    assert [each.class_id for each in found] == [1, 3, 0, 2]
    assert unpack_classes(pack_classes(found)) == tuple(found)
    assert len(top_classes(np.zeros(1000, np.float32), np.zeros(1000, np.float32))) == 10


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ((3,), (), {3: Outcome.UNKNOWN}),
        ((3,), (3,), {3: Outcome.TRUE_POSITIVE}),
        ((3,), (1,), {3: Outcome.FALSE_POSITIVE, 1: Outcome.FALSE_NEGATIVE}),
        ((), (1,), {1: Outcome.FALSE_NEGATIVE}),
        ((), (), {}),
        ((1, 2), (2, 4), {1: Outcome.FALSE_POSITIVE, 2: Outcome.TRUE_POSITIVE, 4: Outcome.FALSE_NEGATIVE}),
    ],
)
def test_outcomes(predicted, true, expected):
    assert outcomes_of(predicted, true) == expected


def test_the_oldest_maps_go_and_leave_what_became_of_them(bounded, make_sample, make_map, make_score):
    records = [make_sample(float(time)) for time in (3, 1, 2, 4)]
    for number, record in enumerate(records):
        bounded.add_sample(record)
        bounded.add_map(record.key, make_map("gradcam", (64, 64), random=number), [make_score()])
    bounded.prune_details(0.0)
    reader = Reader(bounded.database)
    kept = [view.explained["gradcam"].kept for view in reader.page(SampleFilter(), Order(), 9).samples]
    assert kept == [True, True, True, False]  # the newest first
    gone = reader.sample(records[1].key).explanations["gradcam"]
    assert (gone.map, gone.status, len(gone.scores)) == (None, MapStatus.OK, 1)
    assert gone.shape is not None
    assert bounded.scores(records[1].key) == [make_score()]


def test_pictures_go_beyond_their_bytes_and_days(bounded, make_sample):
    records = [make_sample(time) for time in (0.0, DAY, 2 * DAY, 2 * DAY + 1)]
    for record in records:
        bounded.add_sample(record)
        bounded.put_picture(record.key, b"j" * 200, b"p" * 200)
    bounded.prune_details(2 * DAY - 1)
    reader = Reader(bounded.database)

    def shown():
        return [view.has_thumbnail for view in reader.page(SampleFilter(), Order(descending=False), 9).samples]

    assert shown() == [False, False, True, True]  # one by its age, one since three have 1200 bytes
    assert reader.sample(records[1].key).input_png == b""
    assert reader.sample(records[2].key).input_png == b"p" * 200
    bounded.prune_details(1e9)
    assert shown() == [False] * 4


def test_a_picture_replaces_the_one_before(store, make_sample):
    record = make_sample()
    store.put_picture(record.key, b"too early", b"")
    store.add_sample(record)
    store.put_picture(record.key, b"one", b"two")
    store.put_picture(record.key, b"three", b"")
    detail = Reader(store.database).sample(record.key)
    assert (detail.view.thumbnail, detail.input_png) == (b"three", b"")


def test_a_withheld_map_takes_the_place_of_one_and_the_reverse(store, make_sample, make_map, make_score):
    record = make_sample()
    store.add_sample(record)
    curve = MaskingCurve("deletion", "black", 2**64 - 1, np.array([0, 1]), np.array([1.0, 0.5]))
    for _ in range(2):
        store.add_map(record.key, make_map(), [make_score()])
        store.put_scores(record.key, [replace(make_score(metric="faithfulness/srg"), curves=(curve,))])
        view = Reader(store.database).sample(record.key).explanations["gradcam"]
        assert (view.status, view.curves[0].tie_seed, list(view.curves[0].probabilities)) == (
            MapStatus.OK, 2**64 - 1, [1.0, 0.5],
        )  # fmt: skip
        store.put_withheld(record.key, "gradcam", 3, MapStatus.ZERO_GRADIENT, 7)
        view = Reader(store.database).sample(record.key).explanations["gradcam"]
        assert (view.status, view.pass_count, view.map, view.scores, view.curves) == (
            MapStatus.ZERO_GRADIENT, 7, None, (), (),
        )  # fmt: skip
        where = SampleFilter(map_statuses=frozenset({MapStatus.ZERO_GRADIENT}))
        assert len(Reader(store.database).page(where, Order(), 9).samples) == 1


def test_the_store_tells_what_happens(store, make_sample, make_map):
    record, told = make_sample(), []
    watcher = store.changes.watch(lambda: told.append("woken"))
    store.add_sample(record)
    store.add_sample(record)  # no news
    store.add_map(record.key, make_map(), [])
    store.set_state(record.key, SampleState.SCORED)
    assert watcher.read() == ({record.key: {Change.NEW, Change.MEASURED}}, 0)
    assert told == ["woken"]
    truth = GroundTruth((1,), (), 5.0)
    store.put_truth(record.key, truth)
    store.put_truth(record.key, truth)
    store.mark_applied(record.key, 5.0)
    assert watcher.read() == ({record.key: {Change.LABELLED, Change.TRUTH_APPLIED}}, 0)
    assert watcher.read() == ({}, 0)
    store.changes.unwatch(watcher)
    store.add_sample(make_sample())
    assert watcher.read() == ({}, 0)
    assert told == ["woken"] * 2


def test_a_watcher_that_does_not_read_forgets_the_oldest():
    changes = Changes()
    watcher = changes.watch(lambda: None)
    for number in range(MOST_CHANGED + 7):
        changes.put(SampleKey(f"r{number}", 0), Change.NEW)
    changed, missed = watcher.read()
    assert (len(changed), missed, next(iter(changed))) == (MOST_CHANGED, 7, SampleKey("r7", 0))
    changes.put(SampleKey("r7", 0), Change.MEASURED)
    assert watcher.read() == ({SampleKey("r7", 0): {Change.MEASURED}}, 0)


def test_classes_are_kept_with_a_sample(store, make_sample):
    record = make_sample()
    store.add_sample(record, classes=[TopClass(3, 0.75, 2.5), TopClass(0, 0.25, -0.5)])
    assert Reader(store.database).sample(record.key).view.classes == ((3, 0.75, 2.5), (0, 0.25, -0.5))
