"""Reports of ground truth as the evaluator takes them; every error names its field."""

import struct
import time

import pytest
from cpu_time import least_cpu_seconds

from xai_proto import explanation_pb2 as pb
from xai_sidecar.errors import InvalidRequestError, PictureTooLargeError
from xai_sidecar.evaluator.ingest import Receipt
from xai_sidecar.evaluator.records import BoxAnnotation, MaskAnnotation, PolygonAnnotation, SampleKey, TruthObject
from xai_sidecar.evaluator.store import Reported
from xai_sidecar.rpc import ground_truth
from xai_sidecar.rpc.ground_truth import read_report
from xai_sidecar.serving.ground_truth import check_report, receipt_of


def read_ground_truth(message, model):
    return check_report(read_report(message), model)


def ground_truth_response(message, receipt):
    return ground_truth.ground_truth_response(receipt_of(receipt, read_report(message)))


BOX = pb.Region(left=1, top=2, right=3.5, bottom=4)
TRIANGLE = pb.Polygon(points=[pb.Point(x=0, y=1), pb.Point(x=2, y=3.5), pb.Point(x=4)])


def report(**fields):
    objects = [pb.GroundTruthObject(**{"box": BOX, **one}) for one in fields.pop("objects", ())]
    return pb.ReportGroundTruthRequest(**{"request_id": "mine", "objects": objects, **fields})


def thing(**fields):
    return {"box": None, **fields}


@pytest.fixture
def read(model):
    """Reads a report; returns the classes and the objects."""

    def read(**fields):
        _, truth = read_ground_truth(report(**fields), model)
        return truth.class_ids, truth.objects

    return read


def test_which_sample_and_when(model):
    before = time.time()
    key, truth = read_ground_truth(report(labels=["b"], image_index=3), model)
    assert key == SampleKey("mine", 3)
    assert before <= truth.time <= time.time()
    assert read_ground_truth(report(labels=["b"]), model)[0] == SampleKey("mine", 0)


@pytest.mark.parametrize(
    ("fields", "class_ids"),
    [
        ({"labels": ["b"]}, (1,)),
        ({"labels": ["d", "b"]}, (1, 3)),
        ({"class_ids": [2, 0]}, (0, 2)),
        ({"labels": ["d", "a", "d"], "class_ids": [3, 2, 2]}, (0, 2, 3)),
        ({"objects": [{}]}, ()),
        ({"boxes": [BOX]}, ()),
    ],
)
def test_classes(read, fields, class_ids):
    assert read(**fields)[0] == class_ids


def test_shapes(read):
    _, objects = read(
        boxes=[BOX, pb.Region(right=1, bottom=1)],
        objects=[{}, thing(polygon=TRIANGLE), thing(mask_png=b"png", class_id=0), thing(mask_png=b"")],
    )
    box = BoxAnnotation(1.0, 2.0, 3.5, 4.0)
    assert objects == (
        TruthObject(box),
        TruthObject(BoxAnnotation(0.0, 0.0, 1.0, 1.0)),
        TruthObject(box),
        TruthObject(PolygonAnnotation(((0.0, 1.0), (2.0, 3.5), (4.0, 0.0)))),
        TruthObject(MaskAnnotation(b"png"), 0),
        TruthObject(MaskAnnotation(b"")),
    )


@pytest.mark.parametrize(
    ("one", "class_id"),
    [
        ({}, None),
        ({"label": "c"}, 2),
        ({"class_id": 0}, 0),
        ({"label": "a", "class_id": 0}, 0),
    ],
)
@pytest.mark.parametrize("reported", [(), (0, 2)])
def test_classes_of_objects(read, one, class_id, reported):
    ((shown,),) = (read(class_ids=reported, objects=[one])[1],)
    assert shown.class_id == class_id


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"request_id": ""}, "request_id", "PredictResponse"),
        ({"request_id": "a b", "labels": ["a"]}, "request_id", "128"),
        ({"labels": ["a"], "image_index": -1}, "image_index", "-1"),
        ({}, "labels", "empty"),
        ({"labels": ["a", "e"]}, "labels[1]", "'e'"),
        ({"labels": ["a", "x" * 10_000]}, "labels[1]", "ModelInfo.labels"),
        ({"labels": [""]}, "labels[0]", "''"),
        ({"class_ids": [3, 4]}, "class_ids[1]", "0 to 3"),
        ({"class_ids": [-1]}, "class_ids[0]", "-1"),
        ({"objects": [{}, thing()]}, "objects[1].shape", "no shape"),
        ({"objects": [{}, {"label": "e"}]}, "objects[1].label", "'e'"),
        ({"objects": [{"class_id": 4}]}, "objects[0].class_id", "0 to 3"),
        ({"objects": [{"class_id": -1}]}, "objects[0].class_id", "-1"),
        ({"objects": [{"label": "a", "class_id": 1}]}, "objects[0].label", "class 1"),
        ({"objects": [{"label": "e", "class_id": 1}]}, "objects[0].label", "class 1"),
        ({"labels": ["b"], "objects": [{"label": "b"}, {"label": "a"}]}, "objects[1].label", "'a'"),
        ({"class_ids": [1, 2], "objects": [{"class_id": 0}]}, "objects[0].class_id", "'a'"),
        ({"boxes": [BOX] * 600, "objects": [{}] * 401}, "objects", "1,001"),
    ],
)
def test_what_is_wrong(model, fields, field, told):
    with pytest.raises(InvalidRequestError) as caught:
        read_ground_truth(report(**fields), model)
    assert caught.value.field == field
    assert told in caught.value.message
    assert len(caught.value.message) < 300


def test_as_many_objects_as_there_may_be(read):
    assert len(read(boxes=[BOX] * 600, objects=[{}] * 400)[1]) == 1000


def test_warnings_name_the_field_that_they_are_about():
    request = report(boxes=[BOX] * 2, objects=[{}] * 2)
    receipt = Receipt(Reported.REPEATED, [(0, "One."), (1, "Two."), (2, "Three."), (2, "Four."), (3, "Five.")])
    response = ground_truth_response(request, receipt)
    assert not response.changed
    told = ["boxes[0]: One.", "boxes[1]: Two.", "objects[0]: Three.", "objects[0]: Four.", "objects[1]: Five."]
    assert response.warnings == told


def test_not_all_warnings_of_many_are_sent():
    receipt = Receipt(Reported.NEW, [(number, "Outside.") for number in range(1000)])
    response = ground_truth_response(report(objects=[{}] * 1000), receipt)
    assert response.changed
    assert list(response.warnings[:2]) == ["objects[0]: Outside.", "objects[1]: Outside."]
    assert len(response.warnings) == 11
    assert response.warnings[-1] == "There are 990 more warnings like these."


# ------------------------------------------------------------------------------------------------ labels of several


@pytest.fixture
def cranes(make_model):
    """The bird and the machine."""
    return make_model("model.labels=['crane', 'owl', 'crane', 'digger']")


def test_labels_that_several_classes_share(cranes):
    with pytest.raises(InvalidRequestError, match="classes 0, 2") as caught:
        read_ground_truth(report(labels=["owl", "crane"]), cranes)
    assert caught.value.field == "labels[1]"
    with pytest.raises(InvalidRequestError, match="classes 0, 2") as caught:
        read_ground_truth(report(objects=[{"label": "crane"}]), cranes)
    assert caught.value.field == "objects[0].label"


def test_the_class_id_tells_them_apart(cranes):
    _, truth = read_ground_truth(report(class_ids=[2], objects=[{"label": "crane", "class_id": 2}]), cranes)
    assert (truth.class_ids, truth.objects[0].class_id) == ((2,), 2)
    with pytest.raises(InvalidRequestError) as caught:
        read_ground_truth(report(class_ids=[2], objects=[{"label": "crane", "class_id": 0}]), cranes)
    assert caught.value.field == "objects[0].class_id"


LONG = "\N{SNOWMAN}" * 1_000_000  # of five, protobuf alone takes 40 ms to make a string


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": [LONG]},
        {"objects": [thing(box=BOX, label=LONG)]},
        {"objects": [thing(box=BOX, label=LONG, class_id=0)]},
        {"labels": ["b"] * 1_000_000},
        {"class_ids": [-1] * 1_000_000},
        {"boxes": [BOX] * 100_000},
        {"objects": [thing(polygon=pb.Polygon(points=[pb.Point()] * 500_000))]},
        {"request_id": LONG},
    ],
    ids=range(8),
)
def test_what_is_far_too_much_is_refused_before_anything_is_made_of_it(model, fields):
    message = report(**fields)

    def refused():
        with pytest.raises(InvalidRequestError) as caught:
            read_ground_truth(message, model)
        assert len(caught.value.message) < 300

    assert least_cpu_seconds(refused) < 0.05


def blank(side):
    """The beginning of a mask, which says how large it is."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", side, side)


def test_all_masks_and_polygons_of_a_report_are_bounded(make_model):
    model = make_model("server.max_pixels=10000")

    def read(*objects, **fields):
        return read_ground_truth(report(objects=objects, **fields), model)

    masks, corners = thing(mask_png=blank(100)), thing(polygon=pb.Polygon(points=[pb.Point()] * 10_000))
    read(masks, masks, *[corners] * 10)
    with pytest.raises(PictureTooLargeError, match="30,000 pixels, of at most 20,000") as caught:
        read(masks, masks, masks, boxes=[BOX])
    assert caught.value.field == "objects[2].mask_png"
    with pytest.raises(InvalidRequestError, match="110,000 corners") as caught:
        read(*[corners] * 11)
    assert caught.value.field == "objects[10].polygon"
    with pytest.raises(PictureTooLargeError):
        read(thing(mask_png=blank(2**31)))
