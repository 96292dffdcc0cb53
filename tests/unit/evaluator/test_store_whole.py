"""Samples stored with all that came of them leave the same rows as samples stored bit by bit."""

from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import select

from xai_sidecar.errors import StoreError
from xai_sidecar.evaluator.records import BoxAnnotation, GroundTruth, SampleKey, SampleState, TruthObject
from xai_sidecar.evaluator.store import TopClass
from xai_sidecar.evaluator.store.tables import METADATA
from xai_sidecar.evaluator.store.whole import MeasuredSample, pack, put_measured
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.metrics.base import MaskingCurve
from xai_sidecar.runner.recording import SampleRecorder

TRUTH = GroundTruth((3, 5), (TruthObject(BoxAnnotation(1, 2, 3, 4), 3),), 2.0)
CLASSES = [TopClass(3, 0.75, 2.0), TopClass(1, 0.25, 0.5)]
WITHHELD = next(status for status in MapStatus if not status.believed)
CURVE = MaskingCurve("deletion", "blur", 7, np.array([0, 9, 72], np.int32), np.array([0.75, 0.5, 0.125], np.float32))


@pytest.fixture(params=[None, TRUTH], ids=["nothing known", "truth"])
def truth(request):
    return request.param


@pytest.fixture
def results(make_map, make_score):
    """What a keeper does with a store, on any store and key."""

    def results(store, key):
        store.add_map(key, make_map("gradcam"), ())
        store.put_scores(key, [replace(make_score("gradcam", "faithfulness/srg"), curves=(CURVE,))])
        store.add_map(key, make_map("rise", random=1, parameters={"masks": 8}, definition="d"), [make_score("rise")])
        store.put_scores(key, [make_score("rise", value=None, status=None), make_score("rise", "localization/iosr")])
        store.put_withheld(key, "gradient", 3, WITHHELD, 9, [make_score("gradient", "explain", 0.0)])
        store.set_ood(key, (0.5, 12.0))
        store.set_state(key, SampleState.SCORED)

    return results


def rows(store):
    """All rows of all tables that belong to samples, without the numbers of samples."""
    with store.database.read() as connection:
        return {
            name: sorted(
                repr([value for column, value in row._mapping.items() if column not in ("id", "sample_id")])
                for row in connection.execute(select(table))
            )
            for name, table in METADATA.tables.items()
            if name != "store_secrets"
        }


def bit_by_bit(store, record, truth, results):
    store.add_sample(record, classes=CLASSES)
    if truth is not None:
        store.put_truth(record.key, truth)
        store.mark_applied(record.key, truth.time)
    results(store, record.key)


def whole(record, truth, results):
    ended = []
    recorder = SampleRecorder(ended.append)
    recorder.begin(MeasuredSample(record, CLASSES, truth))
    assert recorder.truth(record.key) == truth
    results(recorder, record.key)
    return pack(ended[0])


def test_the_rows_are_the_same(url, open_store, tmp_path, make_sample, truth, results):
    record = make_sample(key=SampleKey("a", 0), positives=(1, 3))
    expected, store = open_store(f"sqlite:///{tmp_path}/other.db"), open_store(url)
    bit_by_bit(expected, record, truth, results)
    put_measured(store, [whole(record, truth, results)])
    found = rows(store)
    assert found == rows(expected)
    assert len(found["explained"]) == 3
    assert len(found["curves"]) == 1
    assert len(found["ground_truths"]) == (truth is not None)


def test_what_there_is_of_a_sample_goes(store, make_sample, make_map, results):
    record = make_sample(key=SampleKey("a", 0))
    one = whole(record, TRUTH, results)
    put_measured(store, [one])
    expected = rows(store)
    store.add_map(record.key, make_map("occlusion"), ())  # as of a run that was killed
    store.set_state(record.key, SampleState.PENDING)
    put_measured(store, [one])
    assert rows(store) == expected


def test_of_a_picture_with_several_samples_all_are_stored_or_none(store, make_sample, results):
    samples = [whole(make_sample(key=SampleKey("a", index)), None, results) for index in range(2)]
    broken = whole(make_sample(key=SampleKey("b", 0), model_version=None), None, results)  # no column takes that
    with pytest.raises(StoreError):
        put_measured(store, [*samples, broken])
    assert store.states() == []
    put_measured(store, samples)
    assert [key for key, _ in store.states()] == [SampleKey("a", 0), SampleKey("a", 1)]
