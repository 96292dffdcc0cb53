"""Ground truth: every shape arrives as it was meant, and wrong ones are refused before anything is sent."""

import io

import numpy as np
import pytest
from PIL import Image

from xai_client import ArgumentError, GroundTruthObject, ImageError
from xai_client.ground_truth import ground_truth_request
from xai_proto import explanation_pb2 as pb

SHAPE = np.array([[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]], bool)
BOX = (1, 2, 3, 4)


def report(*objects, labels=(), class_ids=()):
    return ground_truth_request("r", labels, objects=objects, class_ids=class_ids)


def sent(mask):
    """The mask as the server reads it."""
    (item,) = report(GroundTruthObject(mask=mask)).objects
    picture = Image.open(io.BytesIO(item.mask_png))
    assert (picture.format, picture.mode) == ("PNG", "1")
    return np.asarray(picture)


def png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_labels_class_ids_and_boxes():
    message = ground_truth_request("r", ["cat", "dog"], [(1, 2.5, 3, 4)], 2, class_ids=[0, 5])
    assert message == pb.ReportGroundTruthRequest(
        request_id="r",
        image_index=2,
        labels=["cat", "dog"],
        boxes=[pb.Region(left=1, top=2.5, right=3, bottom=4)],
        class_ids=[0, 5],
    )


def test_a_single_one_needs_no_list():
    message = ground_truth_request("r", "cat", class_ids=np.int64(3), objects=GroundTruthObject(box=BOX))
    assert (list(message.labels), list(message.class_ids), len(message.objects)) == (["cat"], [3], 1)


def test_boxes_and_polygons():
    points = ([x, y] for x, y in ((0, 0), (4.5, 0), (0, 3)))
    message = report(
        GroundTruthObject(box=np.array([-1.5, 0, 2, 3])),
        GroundTruthObject(polygon=points, label="cat", class_id=0),
        GroundTruthObject(polygon=np.array([[0, 0], [1, 0], [1, 1], [0, 1]]), class_id=7),
    )
    first, second, third = message.objects
    assert first == pb.GroundTruthObject(box=pb.Region(left=-1.5, right=2, bottom=3))
    assert not first.HasField("class_id")
    assert [(point.x, point.y) for point in second.polygon.points] == [(0, 0), (4.5, 0), (0, 3)]
    assert second.HasField("class_id")
    assert (second.label, second.class_id) == ("cat", 0)
    assert [(point.x, point.y) for point in third.polygon.points] == [(0, 0), (1, 0), (1, 1), (0, 1)]
    assert (third.label, third.class_id) == ("", 7)


def test_an_object_can_be_sent_twice():
    item = GroundTruthObject(polygon=iter([(0, 0), (1, 0), (0, 1)]))
    assert report(item) == report(item)


@pytest.mark.parametrize("array", [SHAPE, SHAPE.astype(np.uint8), SHAPE * np.uint8(200), SHAPE[::-1][::-1]])
def test_masks_that_are_arrays(array):
    assert np.array_equal(sent(array), SHAPE)


def test_strided_masks_keep_their_order():
    wide = np.zeros((6, 8), bool)
    wide[::2, ::-2] = SHAPE
    assert np.array_equal(sent(wide[::2, ::-2]), SHAPE)


def drawn(mode):
    """`SHAPE` in a picture of this mode; what belongs to it is as dark as it may be."""
    if mode == "I;16":
        return Image.fromarray(SHAPE.astype(np.uint16))
    if mode in ("I", "F"):
        return Image.fromarray(SHAPE.astype({"I": np.int32, "F": np.float32}[mode]))
    if mode == "P":
        picture = Image.fromarray(SHAPE.astype(np.uint8), "P")
        picture.putpalette([0, 0, 0, 0, 0, 1])
        return picture
    if mode == "1":
        return Image.fromarray(SHAPE)
    if mode == "CMYK":
        return Image.fromarray(SHAPE.astype(np.uint8) * 255).convert("RGB").convert("CMYK")
    return Image.fromarray(SHAPE.astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_masks_that_are_pictures(mode):
    assert np.array_equal(sent(drawn(mode)), SHAPE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_masks_that_are_files(mode, tmp_path):
    data = png(drawn(mode))
    path = tmp_path / "mask.png"
    path.write_bytes(data)
    for mask in (data, bytearray(data), memoryview(data), path, str(path)):
        assert np.array_equal(sent(mask), SHAPE)


def test_what_is_transparent_belongs_to_no_object():
    pixels = np.full((3, 4, 4), 255, np.uint8)
    pixels[:, :, 3] = SHAPE
    assert np.array_equal(sent(Image.fromarray(pixels)), SHAPE)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((2, 3), bool), "empty"),
        (np.zeros((0, 3), bool), "shape"),
        (np.ones((2, 3, 1), np.uint8), "shape"),
        (np.ones((2, 3), np.float32), "float32"),
        (Image.new("L", (2, 2)), "empty"),
        (Image.new("L", (0, 2)), "shape"),
        (7, "a mask is"),
        ([[1, 0]], "a mask is"),
        (b"", "PNG"),
        (b"no picture", "PNG"),
        (png(Image.new("L", (30, 30), 9))[:50], "PNG"),
        (png(Image.new("L", (2, 2))), "empty"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_mask_is_refused(mask, words):
    with pytest.raises(ImageError, match=words) as caught:
        report(GroundTruthObject(mask=mask))
    assert caught.value.field == "objects"


def test_a_jpeg_is_no_mask(jpeg):
    with pytest.raises(ImageError, match="PNG"):
        report(GroundTruthObject(mask=jpeg))


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        report(GroundTruthObject(mask=tmp_path / "none.png"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "given: none"),
        ({"label": "cat"}, "given: none"),
        ({"box": BOX, "mask": SHAPE}, "given: box and mask"),
        ({"box": (1, 2, 3)}, "a box is"),
        ({"box": "1234"}, "a box is"),
        ({"box": (1, 2, 3, "x")}, "a box is"),
        ({"box": (1, 2, 3, float("inf"))}, "a box is"),
        ({"box": (1, 2, float("nan"), 4)}, "a box is"),
        ({"box": 5}, "a box is"),
        ({"box": (3, 2, 3, 4)}, "empty"),
        ({"box": (1, 4, 3, 2)}, "empty"),
        ({"polygon": [(0, 0), (1, 0)]}, "at least three points, not 2"),
        ({"polygon": []}, "at least three points, not 0"),
        ({"polygon": [(0, 0), (1, 0), (1, 1, 1)]}, "a polygon is"),
        ({"polygon": [(0, 0), (1, 0), (1, float("nan"))]}, "a polygon is"),
        ({"polygon": [0, 0, 1, 0, 1, 1]}, "a polygon is"),
        ({"polygon": ["00", "10", "11"]}, "a polygon is"),
        ({"polygon": 5}, "a polygon is"),
        ({"box": BOX, "label": ""}, "a label is"),
        ({"box": BOX, "label": 7}, "a label is"),
        ({"box": BOX, "class_id": -1}, "class_id"),
        ({"box": BOX, "class_id": "cat"}, "class_id"),
        ({"box": BOX, "class_id": True}, "class_id"),
    ],
    ids=repr,
)
def test_what_is_no_object_is_refused_when_it_is_made(fields, words):
    with pytest.raises(ArgumentError, match=words):
        GroundTruthObject(**fields)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "nothing to report"),
        ({"request_id": None, "labels": "cat"}, "request_id"),
        ({"request_id": "", "labels": "cat"}, "request_id"),
        ({"request_id": "a b", "labels": "cat"}, "request_id"),
        ({"labels": [1]}, "a label is"),
        ({"labels": ["cat", ""]}, "a label is"),
        ({"labels": 5}, "a label is"),
        ({"labels": "cat", "image_index": -1}, "image_index"),
        ({"labels": "cat", "image_index": 0.5}, "image_index"),
        ({"class_ids": [-1]}, "class_ids"),
        ({"class_ids": "12"}, "class_ids"),
        ({"class_ids": [2**31]}, "class_ids"),
        ({"class_ids": True}, "class_ids"),
        ({"boxes": [(1, 2, 3)]}, "a box is"),
        ({"boxes": BOX}, "a box is"),
        ({"boxes": 5}, "a box is"),
        ({"boxes": [(1, 2, 1, 4)]}, "empty"),
        ({"objects": [BOX]}, "GroundTruthObject"),
        ({"objects": 5}, "GroundTruthObject"),
    ],
    ids=repr,
)
def test_wrong_reports_are_refused(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        ground_truth_request(**{"request_id": "r", **arguments})


def test_an_object_is_of_a_class_that_is_reported():
    cat, seven = GroundTruthObject(box=BOX, label="cat"), GroundTruthObject(box=BOX, class_id=7)
    with pytest.raises(ArgumentError, match="'cat', but reported is only 'dog', 'cow'"):
        report(cat, labels=["dog", "cow"])
    with pytest.raises(ArgumentError, match="class 7, but reported is only 6, 8"):
        report(seven, class_ids=[6, 8])
    # Only the server knows which label a class has.
    for fields in (
        {"labels": ["cat"], "class_ids": [7]},
        {"labels": ["dog"], "class_ids": [6]},
        {},
    ):
        assert len(report(cat, seven, **fields).objects) == 2
    assert len(report(cat, class_ids=[6]).objects) == len(report(seven, labels=["dog"]).objects) == 1
