"""MindSpore's own data sets, as the seeds' runner has them, given to a run."""

import numpy as np
import pytest
from PIL import Image

from xai_sidecar.backends.mindspore.runtime import ms
from xai_sidecar.evaluator.records import BoxAnnotation, TruthObject
from xai_sidecar.runner.data import Labels, open_data

LABELS = Labels(("cat", "dog"), 2)


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Opens what a script's `rows` are."""

    def opened(rows):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(opened.__globals__, "rows", rows)
        return open_data(f"{__name__}:rows", LABELS)

    return opened


def test_a_folder_of_classes(opened, tmp_path):
    """Decoded pictures of their own sizes, in MindSpore's order of the classes, as often as they are asked for."""
    for number, (label, size) in enumerate([("cat", (5, 4)), ("dog", (6, 3)), ("dog", (2, 7))]):
        (tmp_path / label).mkdir(exist_ok=True)
        Image.new("RGB", size, (10 * number, 100, 200)).save(tmp_path / label / f"{number}.png")
    data = opened(ms.dataset.ImageFolderDataset(str(tmp_path), decode=True, shuffle=False))
    for _ in range(2):
        found = [(item.content.shape, item.content[0, 0].tolist(), item.class_ids) for item in data]
        assert found == [
            ((4, 5, 3), [0, 100, 200], (0,)),
            ((3, 6, 3), [10, 100, 200], (1,)),
            ((7, 2, 3), [20, 100, 200], (1,)),
        ]
    assert len(data) == 3


def test_batches_of_inputs_labels_and_boxes(opened):
    """Rows of fewer labels are filled up below 0, and what is filled up is nobody's box."""
    inputs = np.random.default_rng(1).normal(0, 1, (3, 3, 8, 8)).astype(np.float32)
    labels = np.array([[1, -1], [0, 1], [0, -1]], np.int32)
    boxes = np.array([[[0, 1, 2, 3], [0, 0, 0, 0]], [[1, 1, 2, 2], [3, 3, 4, 4]], [[2, 0, 5, 6], [0, 0, 0, 0]]])
    columns = (inputs, labels, boxes.astype(np.int32))
    dataset = ms.dataset.NumpySlicesDataset(columns, ["image", "labels", "boxes"], shuffle=False)
    data = opened(dataset.batch(2))
    items = list(data)
    for item, expected in zip(items, inputs, strict=True):
        np.testing.assert_array_equal(item.content, expected)
    assert [item.class_ids for item in items] == [(1,), (0, 1), (0,)]
    assert [item.objects for item in items] == [
        (TruthObject(BoxAnnotation(0, 1, 2, 4), 1),),
        (TruthObject(BoxAnnotation(1, 1, 3, 3), 0), TruthObject(BoxAnnotation(3, 3, 7, 7), 1)),
        (TruthObject(BoxAnnotation(2, 0, 7, 6), 0),),
    ]


def test_what_a_generator_makes(opened):
    def pictures():
        for value in (3, 200):
            yield np.full((6, 5, 1), value, np.uint8), np.int32(value > 100)

    data = opened(ms.dataset.GeneratorDataset(pictures, ["image", "label"], shuffle=False))
    assert [(item.content.shape, int(item.content.max()), item.class_ids) for item in data] == [
        ((6, 5, 1), 3, (0,)),
        ((6, 5, 1), 200, (1,)),
    ]
