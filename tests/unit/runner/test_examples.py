"""Which maps a report shows."""

import io

import numpy as np
import pytest
from PIL import Image

from xai_sidecar.evaluator.records import (
    BoxAnnotation,
    Frame,
    GroundTruth,
    MapRecord,
    SampleKey,
    SampleRecord,
    TruthObject,
)
from xai_sidecar.evaluator.store import Store
from xai_sidecar.evaluator.store.whole import MeasuredSample, pack, put_measured
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.runner.examples import Example, chosen, galleries


def example(name, target, probability, predicted, truth, value):
    record = SampleRecord(SampleKey(name, 0), 1.0, "m", Frame(8, 8), target, probability, predicted)
    return Example(record, value, truth)


EXAMPLES = [
    example("right", 1, 0.9, (1,), (1,), 0.5),
    example("right, hardly by it", 1, 0.8, (1,), (1,), 0.1),
    example("wrong and sure", 2, 0.95, (2,), (1,), 0.4),
    example("wrong", 2, 0.5, (2,), (3,), 0.6),
    example("true and not predicted", 1, 0.03, (2,), (1,), 0.01),
    example("probable and not predicted", 3, 0.3, (2,), (1,), 0.02),
    example("nobody knows", 2, 0.99, (2,), (), 0.9),
    example("no score", 2, 0.97, (2,), (1,), None),
]


def shown(lead):
    return {title: [each.sample.key.request_id for each in some] for title, some in chosen(EXAMPLES, lead)}


def test_what_is_right_or_wrong_was_predicted():
    lists = shown("faithfulness/srg")
    assert lists["Where the explanation fits best"] == ["nobody knows", "wrong", "right"]
    worst = ["true and not predicted", "probable and not predicted", "right, hardly by it"]
    assert lists["Where it fits worst"] == worst
    assert lists["Wrong, and sure of it"] == ["no score", "wrong and sure", "wrong"]
    hardly = lists["Right, though the prediction hardly depends on what the map shows"]
    assert hardly == ["right, hardly by it", "right"]


def test_where_less_is_better_the_lists_are_the_other_way_round():
    lists = shown("faithfulness/deletion_auc")
    assert lists["Where the explanation fits best"][0] == "true and not predicted"
    assert lists["Where it fits worst"][0] == "nobody knows"


OBJECT = TruthObject(BoxAnnotation(0, 0, 4, 4))
"""A quarter of the picture."""


def put(store, name, target, truth, top, left, objects=(OBJECT,)):
    """Stores a picture of 8 × 8 pixels, whose map is 1 on 4 × 4 of them and 0.2 elsewhere."""
    saliency = np.full((8, 8), 0.2, np.float32)
    saliency[top : top + 4, left : left + 4] = 1
    record = SampleRecord(SampleKey(name, 0), 1.0, "m", Frame(8, 8), target, 0.9, (target,))
    shown = MapRecord("rise", target, {}, 0, MapStatus.OK, saliency, 1)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    measured = MeasuredSample(record, (), GroundTruth(truth, objects, 1.0), buffer.getvalue(), maps={"rise": shown})
    put_measured(store, [pack(measured)])


def test_wrong_for_the_wrong_reason_is_what_lies_beside_the_objects(tmp_path):
    store = Store.open(f"sqlite:///{tmp_path / 'store.sqlite'}", max_bytes=2**30, retention_seconds=1e11)
    try:
        put(store, "wrong, on it", 2, (1,), 0, 0)
        put(store, "wrong, a quarter on it", 2, (1,), 2, 2)
        put(store, "wrong, beside", 2, (1,), 4, 4)
        put(store, "wrong, nobody knows where it is", 2, (1,), 4, 4, ())
        put(store, "right, beside", 1, (1,), 4, 4)
        lists = dict(galleries(store, {}, "rise", "faithfulness/srg"))
    finally:
        store.close()
    (title,) = (each for each in lists if each.startswith("Wrong for the wrong reason"))
    shown = {each.example.sample.key.request_id: each for each in lists[title]}
    assert list(shown) == ["wrong, beside", "wrong, a quarter on it"]
    assert [each.on_objects for each in shown.values()] == pytest.approx([0, 0.25])
    sure = {each.example.sample.key.request_id: each.on_objects for each in lists["Wrong, and sure of it"]}
    assert sure == {
        "wrong, on it": 1,
        "wrong, a quarter on it": 0.25,
        "wrong, beside": 0,
        "wrong, nobody knows where it is": None,
    }
    assert all(each.thumbnail.startswith(b"\xff\xd8") for each in shown.values())
