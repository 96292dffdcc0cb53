"""History, mean maps and confusion are what a look at all samples finds."""

import math

import numpy as np
import pytest

from xai_sidecar.evaluator.intervals import confidence_half_width
from xai_sidecar.evaluator.reading import Order, Reader, SampleFilter, Shown
from xai_sidecar.evaluator.records import Frame, GroundTruth, MapRecord, SampleKey, SampleRecord, ScoreRecord
from xai_sidecar.evaluator.store import Outcome
from xai_sidecar.evaluator.weighted import statistics_of
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.metrics.base import ScoreStatus

START, END, BINS = 1000.0, 1100.0, 5
SHOWN = Shown("m", ["rise", "gradcam"], ["faithfulness/srg"], frozenset({"now"}), 10.0, single_label=True)


@pytest.fixture
def traffic(store):
    """A store, with what was put into it: time, weight, probability, OoD percentile, class, truth and score of each."""
    generator, found = np.random.default_rng(3), []
    for number in range(40):
        time, weight = float(generator.uniform(990, 1110)), float(generator.integers(1, 9)) / 4
        probability, percentile = float(generator.random()), float(generator.uniform(0, 30))
        target, score = int(generator.integers(3)), float(generator.normal())
        true = (int(generator.integers(3)),) if number % 3 else ()
        if number in (4, 5):
            time = START if number == 4 else END  # an end belongs to what comes then
        key = SampleKey(f"r{number}", 0)
        frame = Frame(8, 8)
        ood = (0.5, percentile) if number % 4 else None
        sample = SampleRecord(key, time, "m", frame, target, probability, (target,), ood, weight=weight)
        store.add_sample(sample)
        values = np.zeros((8, 8), np.float32)
        values[target, 1 : 2 + number % 3] = 1 + number
        measured = ScoreRecord("rise", "faithfulness/srg", target, score, ScoreStatus.OK, 1.0, 1.0, 3, "now")
        store.add_map(key, MapRecord("rise", target, {}, 1, MapStatus.OK, values, 3), [measured])
        if true:
            store.put_truth(key, GroundTruth(true, (), time))
        found.append((time, weight, probability, percentile if number % 4 else math.nan, target, true, score))
    for number, (version, definition) in enumerate([("other", "now"), ("m", "before")]):  # neither counts
        key = SampleKey(f"x{number}", 0)
        store.add_sample(SampleRecord(key, 1200.0 if version == "m" else 1050.0, version, frame, 0, 0.5, (0,)))
        other = ScoreRecord("rise", "faithfulness/srg", 0, 9.0, ScoreStatus.OK, 1.0, 1.0, 3, definition)
        store.put_scores(key, [other])
    return Reader(store.database), found


def test_scores_are_means_by_weight_with_their_intervals(traffic):
    reader, samples = traffic
    history = reader.history(SHOWN, START, END, BINS)
    points = history.scores["rise", "faithfulness/srg"]
    assert ("gradcam", "faithfulness/srg") not in history.scores
    assert history.width == 20.0
    for point in points:
        low = START + 20 * point.bin
        inside = [each for each in samples if low <= each[0] < low + 20]
        values, weights = (np.array([each[place] for each in inside]) for place in (6, 1))
        right = statistics_of(values, weights, 0.0)
        half = confidence_half_width(right.standard_error, right.effective_count)
        assert (point.count, point.mean) == (len(inside), pytest.approx(right.mean))
        assert point.half_width == pytest.approx(half, nan_ok=True)
    assert sum(point.count for point in points) == history.count == sum(START <= each[0] < END for each in samples)


def test_traffic_is_what_was_predicted(traffic):
    reader, samples = traffic
    history = reader.history(SHOWN, START, END, BINS)
    inside = [each for each in samples if START <= each[0] < END]
    weights = np.array([each[1] for each in inside])
    probabilities = np.array([each[2] for each in inside])
    percentiles = np.array([each[3] for each in inside])
    whole, scored = history.whole, ~np.isnan(percentiles)
    assert whole.count == len(inside) == sum(each.count for each in history.traffic)
    assert whole.mean_probability == pytest.approx(np.average(probabilities, weights=weights))
    assert whole.ood_count == scored.sum()
    assert whole.mean_ood_percentile == pytest.approx(np.average(percentiles[scored], weights=weights[scored]))
    assert whole.outlier_share == pytest.approx(np.average(percentiles[scored] < 10, weights=weights[scored]))
    for decile, value in enumerate(whole.deciles, 1):  # so much of the weight lies up to it, and less below
        assert weights[probabilities <= value].sum() >= decile / 10 * weights.sum() - 1e-9
        assert weights[probabilities < value].sum() < decile / 10 * weights.sum() + 1e-9
    counts = {class_id: (count, share) for class_id, count, share in whole.classes}
    for class_id in range(3):
        of_class = np.array([each[4] == class_id for each in inside])
        assert counts[class_id] == (of_class.sum(), pytest.approx(weights[of_class].sum() / weights.sum()))
    assert [share for _, _, share in whole.classes] == sorted((share for _, _, share in whole.classes), reverse=True)
    labelled = [each for each in inside if each[5]]
    assert (whole.labelled, whole.right) == (len(labelled), sum(each[4] in each[5] for each in labelled))


def test_shapes_are_means_of_maps(traffic):
    reader, samples = traffic
    history = reader.history(SHOWN, START, END, 1)
    (point,) = history.shapes["rise", "centre_y"]
    inside = [each for each in samples if START <= each[0] < END]
    centres, weights = ([each[place] for each in inside] for place in (4, 1))
    assert point.mean == pytest.approx(np.average((np.array(centres) + 0.5) / 8, weights=weights))


def test_of_many_samples_the_newest_count(traffic, monkeypatch):
    monkeypatch.setattr("xai_sidecar.evaluator.reading.history.MOST_SAMPLES", 7)
    reader, samples = traffic
    history = reader.history(SHOWN, START, END, BINS)
    newest = sorted((each for each in samples if START <= each[0] < END), reverse=True)[:7]
    assert (history.count, history.truncated) == (7, True)
    assert history.whole.mean_probability == pytest.approx(
        np.average([each[2] for each in newest], weights=[each[1] for each in newest])
    )
    points = history.scores["rise", "faithfulness/srg"]
    assert sum(point.count for point in points) == 7


def test_without_samples_there_is_nothing(store):
    history = Reader(store.database).history(SHOWN, START, END, BINS)
    assert (history.scores, history.shapes, history.traffic, history.count) == ({}, {}, (), 0)
    assert math.isnan(history.whole.mean_probability)
    assert history.whole.deciles == ()


def test_mean_maps_count_every_picture_alike(traffic):
    """Each map is 1 in row `target` from column 1 on, over one to three columns, whatever its height."""
    reader, samples = traffic
    where = SampleFilter(model_version="m")
    classes = reader.frequent_classes(where, 9)
    counts = [sum(each[4] == class_id for each in samples) for class_id in range(3)]
    counts[0] += 1  # one without a map
    assert sorted(classes, key=lambda each: -counts[each]) == classes
    found = {each.class_id: each for each in reader.class_maps(where, classes, ["rise", "gradcam"], 1000)}
    for class_id in range(3):
        numbers = [number for number, each in enumerate(samples) if each[4] == class_id]
        mean = np.zeros((8, 8))
        for number in numbers:
            mean[class_id, 1 : 2 + number % 3] += 1 / len(numbers)
        assert (found[class_id].explainer, found[class_id].count) == ("rise", len(numbers))
        np.testing.assert_allclose(found[class_id].mean.array(), mean, atol=1 / 255)
    newest = reader.class_maps(where, [max(classes)], ["rise"], 2)
    assert newest[0].count == 2
    wrong = SampleFilter(model_version="m", outcomes=Outcome.FALSE_POSITIVE)
    count = sum(bool(each[5]) and each[4] not in each[5] for each in samples)
    assert sum(each.count for each in reader.class_maps(wrong, classes, ["rise"], 1000)) == count


def test_confusion_counts_pairs(traffic):
    reader, samples = traffic
    found, more = reader.confusion(SampleFilter(model_version="m"), 100)
    assert not more
    right = {}
    for each in samples:
        for true in each[5]:
            right[true, each[4]] = right.get((true, each[4]), 0) + 1
    assert {(each.true, each.predicted): each.count for each in found} == right
    assert [each.count for each in found] == sorted(right.values(), reverse=True)
    # Where there are more than are wanted, what was right goes first.
    wrong = [each for each in found if each.true != each.predicted]
    assert reader.confusion(SampleFilter(model_version="m"), len(found)) == (found, False)
    assert reader.confusion(SampleFilter(model_version="m"), len(wrong)) == (wrong, True)
    assert reader.confusion(SampleFilter(model_version="m"), 2) == (wrong[:2], True)
    assert reader.page(SampleFilter(model_version="other"), Order(), 9).samples[0].record.key.request_id == "x0"
