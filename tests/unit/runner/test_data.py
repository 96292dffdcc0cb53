"""Data sets: what is read of folders, tables, COCO's and Pascal VOC's files, and scripts."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from xai_sidecar.errors import ConfigError
from xai_sidecar.evaluator.records import BoxAnnotation, MaskAnnotation, PolygonAnnotation, TruthObject
from xai_sidecar.runner.data import Labels, open_data

LABELS = Labels(("cat", "dog", "café", "cat food"), 4)


def picture(path, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 200, 30)).save(path)
    return path


def named(data):
    return {item.name: item for item in data}


def refused(words, name, labels=LABELS):
    with pytest.raises(ConfigError, match=words) as caught:
        list(open_data(str(name), labels))
    assert caught.value.field == "data"


# -------------------------------------------------------------------------------------------------------- folders


def test_folders_are_classes_by_label_or_id(tmp_path):
    for name in ("cat/a.jpg", "cat/deep/b.PNG", "1/c.jpg", "cafe\u0301/d.jpg"):
        picture(tmp_path / name)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    picture(tmp_path / "cat" / ".hidden.jpg")
    data = open_data(str(tmp_path), LABELS)
    assert len(data) == 4
    assert {name: item.class_ids for name, item in named(data).items()} == {
        "1/c.jpg": (1,),
        "cafe\u0301/d.jpg": (2,),
        "cat/a.jpg": (0,),
        "cat/deep/b.PNG": (0,),
    }
    assert [item.name for item in data] == [item.name for item in open_data(str(tmp_path), LABELS)]


def test_pictures_alone_have_no_classes(tmp_path):
    picture(tmp_path / "a.jpg")
    assert [(item.name, item.class_ids) for item in open_data(str(tmp_path), LABELS)] == [("a.jpg", ())]


def test_folders_that_cannot_be_meant(tmp_path):
    refused("no pictures", tmp_path)
    picture(tmp_path / "horse" / "a.jpg")
    refused("'horse'.*no classes of the model.*'cat'.*0 to 3", tmp_path)
    picture(tmp_path / "b.jpg")
    refused("both pictures, such as b.jpg", tmp_path)
    refused("there is no", tmp_path / "nowhere")
    refused("neither a COCO file", picture(tmp_path / "x" / "c.jpg"))


def test_a_label_of_two_classes_is_no_class(tmp_path):
    picture(tmp_path / "cat" / "a.jpg")
    refused("several classes are called 'cat'.*class id", tmp_path, Labels(("cat", "cat"), 2))


# -------------------------------------------------------------------------------------------------------- tables


def test_a_table_has_one_row_or_several_of_a_picture(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffFile,Label\na.jpg,cat;dog\nb.jpg,3\nb.jpg,cat food\nc.jpg,\nb.jpg,dog|cat\n")
    picture(tmp_path / "a.jpg")
    for name in (path, tmp_path):  # by itself, or in a folder
        assert {name: item.class_ids for name, item in named(open_data(str(name), LABELS)).items()} == {
            "a.jpg": (0, 1),
            "b.jpg": (0, 1, 3),
            "c.jpg": (),
        }
    (tmp_path / "more.csv").write_text("file,label\n")
    refused("2 CSV files", tmp_path)


def test_a_table_may_have_boxes(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("image,class,left,top,right,bottom\na.jpg,dog,1,2,3.5,4\na.jpg,cat,,,,\n")
    (item,) = open_data(str(path), LABELS)
    assert item.class_ids == (0, 1)
    assert item.objects == (TruthObject(BoxAnnotation(1, 2, 3.5, 4), 1),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("file,label\n", "no rows"),
        ("name,label\na,cat\n", "no column 'file': its first row has name, label"),
        ("file,tag\na,cat\n", "no column 'label'"),
        ("file,label\na,horse\n", "'horse'"),
        ("file,label\n,cat\n", "line 2"),
        ("file,label,left,top\na,cat,1,2\n", "only some of the columns"),
        ("file,label,left,top,right,bottom\na,cat,1,2,x,4\n", "line 2, has a box"),
    ],
)
def test_tables_that_cannot_be_meant(tmp_path, content, words):
    (tmp_path / "labels.csv").write_text(content)
    refused(words, tmp_path / "labels.csv")


# -------------------------------------------------------------------------------------------------------- COCO


def coco(tmp_path, annotations, categories=("cat", "dog"), file_name="a.jpg"):
    path = tmp_path / "annotations" / "instances.json"
    path.parent.mkdir(exist_ok=True)
    content = {
        "images": [{"id": 7, "file_name": file_name, "width": 8, "height": 6}],
        "categories": [{"id": 10 + number, "name": name} for number, name in enumerate(categories)],
        "annotations": [{"id": number, "image_id": 7, **each} for number, each in enumerate(annotations)],
    }
    path.write_text(json.dumps(content))
    return path


def test_coco_has_boxes_polygons_and_masks(tmp_path):
    where = picture(tmp_path / "val2017" / "a.jpg")
    annotations = [
        {"category_id": 10, "bbox": [1, 2, 3, 4]},
        {"category_id": 11, "bbox": [0, 0, 8, 6], "segmentation": [[1, 1, 5, 1, 5, 4], [6, 2, 7, 2, 7, 5, 6, 5]]},
        {"category_id": 10, "segmentation": {"size": [6, 8], "counts": [13, 2, 4, 2, 27]}},
    ]
    (item,) = open_data(str(coco(tmp_path, annotations)), LABELS)
    assert item.content == where
    assert item.class_ids == (0, 1)
    box, first, second, mask = item.objects
    assert box == TruthObject(BoxAnnotation(1, 2, 4, 6), 0)
    assert first == TruthObject(PolygonAnnotation(((1, 1), (5, 1), (5, 4))), 1)
    assert second.annotation == PolygonAnnotation(((6, 2), (7, 2), (7, 5), (6, 5)))
    # 13 pixels down the columns of 6: from the second pixel of the third column on.
    expected = np.zeros((6, 8), bool)
    expected[1:3, 2] = True
    expected[1:3, 3] = True
    assert isinstance(mask.annotation, MaskAnnotation)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(mask.annotation.png))) > 0, expected)


def packed(lengths):
    """COCO's text of lengths of runs, written from its description."""
    text = ""
    for place, length in enumerate(lengths):
        value = length - (lengths[place - 2] if place > 2 else 0)
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != -1 if bits & 16 else value != 0
            text += chr(48 + bits + (32 if more else 0))
    return text


@pytest.mark.parametrize("seed", range(5))
def test_packed_masks_are_those_that_were_packed(tmp_path, seed):
    generator = np.random.default_rng(seed)
    mask = generator.random((60, 90)) < generator.choice([0.02, 0.5, 0.98])
    flat = np.concatenate([[False], mask.T.ravel(), [not mask.T.ravel()[-1]]])
    ends = np.flatnonzero(np.diff(flat.astype(int)))
    lengths = np.diff(np.concatenate([[0], ends])).tolist()
    counts = packed(lengths)
    annotations = [{"category_id": 10, "segmentation": {"size": [60, 90], "counts": counts}}]
    (item,) = open_data(str(coco(tmp_path, annotations)), LABELS)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(item.objects[0].annotation.png))) > 0, mask)


def test_categories_that_are_no_classes_are_said(tmp_path):
    annotations = [{"category_id": 10, "bbox": [1, 2, 3, 4]}, {"category_id": 11, "bbox": [1, 2, 3, 4]}]
    data = open_data(str(coco(tmp_path, annotations, ("cat", "horse"))), LABELS)
    (item,) = data
    assert item.class_ids == (0,)
    assert len(item.objects) == 1
    assert data.notes == ["horse are no classes of the model: their objects are left out."]


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ([{"category_id": 10, "bbox": [1, 2, 3]}], "no box, polygon or mask"),
        ([{"category_id": 10, "segmentation": {"size": [6, 8], "counts": [3, 4]}}], "do not add up"),
        ([{"category_id": 10, "segmentation": {"size": [6, 8], "counts": "\x7f!"}}], "no text of COCO's"),
        ([{"category_id": 10, "segmentation": {"size": [6, 8], "counts": "P"}}], "end within a number"),
        ([{"bbox": [1, 2, 3, 4]}], r"annotations\[0\] has no 'category_id'"),
    ],
)
def test_coco_files_that_cannot_be_meant(tmp_path, annotations, words):
    refused(words, coco(tmp_path, annotations))


def test_other_json_is_no_coco_file(tmp_path):
    path = tmp_path / "x.json"
    for content, words in (("{", "cannot be read as JSON"), ("[]", "no COCO file"), ('{"images": 3}', "no COCO file")):
        path.write_text(content)
        refused(words, path)
    refused("'horse'", coco(tmp_path, [], ("horse",)))


# -------------------------------------------------------------------------------------------------------- Pascal VOC


def voc(tmp_path, objects, name="a"):
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / folder).mkdir(exist_ok=True)
    picture(tmp_path / "JPEGImages" / f"{name}.jpg")
    path = tmp_path / "Annotations" / f"{name}.xml"
    path.write_text(f"<annotation><filename>{name}.jpg</filename>{objects}</annotation>")


def test_voc_counts_pixels_from_one(tmp_path):
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>4</xmax><ymax>6</ymax></bndbox>"
    voc(tmp_path, f"<object><name>dog</name><difficult>1</difficult>{box}</object>")
    voc(tmp_path, "", "b")
    found = named(open_data(str(tmp_path), LABELS))
    assert found["a.jpg"].class_ids == (1,)
    assert found["a.jpg"].objects == (TruthObject(BoxAnnotation(0, 1, 4, 6), 1),)
    assert found["a.jpg"].content == tmp_path / "JPEGImages" / "a.jpg"
    assert (found["b.jpg"].class_ids, found["b.jpg"].objects) == ((), ())


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ("<object><name>dog</name></object>", "no name or no bndbox"),
        ("<object><name>dog</name><bndbox><xmin>1</xmin></bndbox></object>", "lacks one of"),
        ("<object>", "cannot be read"),
        (
            "<object><name>horse</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object>",
            "'horse'",
        ),
    ],
)
def test_voc_files_that_cannot_be_meant(tmp_path, objects, words):
    voc(tmp_path, objects)
    refused(words, tmp_path)


# -------------------------------------------------------------------------------------------------------- scripts


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(body):
        name = f"script_{abs(hash(body))}"
        (tmp_path / f"{name}.py").write_text(f"import numpy as np\n{body}\n")
        sys.modules.pop(name, None)
        return f"{name}:rows"

    return write


def test_a_callable_gives_pictures_labels_and_boxes(script):
    name = script(
        "def rows():\n"
        "    yield np.zeros((3, 4, 5), np.float32)\n"
        "    yield (np.zeros((4, 5, 3), np.uint8), 2)\n"
        "    yield ('a.jpg', 'dog')\n"
        "    yield (np.zeros((4, 5), np.uint8), [1, 3, -1], [[0, 1, 2, 3], [1, 1, 2, 2], [0, 0, 0, 0]])\n"
        "    yield (np.zeros((3, 4, 5)), [0], [0, 1, 2, 3])"
    )
    plain, pixels, path, several, one = open_data(name, LABELS)
    assert [each.name for each in (plain, pixels, several)] == ["00000000", "00000001", "00000003"]
    assert (plain.class_ids, pixels.class_ids, path.class_ids, several.class_ids) == ((), (2,), (1,), (1, 3))
    assert plain.content.dtype == np.float32
    assert str(path.content) == "a.jpg"
    assert several.objects == (
        TruthObject(BoxAnnotation(0, 1, 2, 4), 1),
        TruthObject(BoxAnnotation(1, 1, 3, 3), 3),
    )
    assert one.objects == (TruthObject(BoxAnnotation(0, 1, 2, 4), 0),)
    assert one.content.dtype == np.float32


def test_batches_are_taken_apart(script):
    name = script("rows = [(np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4) / 1.0, np.array([1, 2]))] * 2")
    data = open_data(name, LABELS)
    assert [(item.name, item.class_ids) for item in data] == [
        ("00000000", (1,)),
        ("00000001", (2,)),
        ("00000002", (1,)),
        ("00000003", (2,)),
    ]
    assert len(list(data)) == 4  # again


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("rows = 3", "gives no data set"),
        ("def rows():\n    raise ValueError('no disk')", "ValueError: no disk"),
        ("other = []", "gives no data set"),
        ("rows = [()]", "row 0 .* has 0 columns"),
        ("rows = [(np.zeros(3),)]", "no picture"),
        ("rows = [(np.zeros((3, 4, 4), np.int64),)]", "neither pixels nor a model input"),
        ("rows = [(np.zeros((3, 4, 4)), 1.5)]", "not class ids"),
        ("rows = [(np.zeros((3, 4, 4)), 9)]", "has the class 9"),
        ("rows = [(np.zeros((3, 4, 4)), 'horse')]", "'horse'"),
        ("rows = [(np.zeros((3, 4, 4)), [1, 2], [[0, 0, 1, 1]])]", "boxes of shape"),
        ("rows = [(np.zeros((2, 3, 4, 4)), [1])]", "not of one length"),
    ],
)
def test_scripts_that_cannot_be_meant(script, body, words):
    refused(words, script(body))
