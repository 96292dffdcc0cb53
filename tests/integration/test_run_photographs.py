"""`xai-sidecar run` over photographs with COCO's boxes, by the sample classifier, some of them broken on purpose."""

import csv
import json
from contextlib import closing

import launcher
import pytest
from PIL import Image

from xai_sidecar.evaluator.records import SampleKey
from xai_sidecar.evaluator.store import Store
from xai_sidecar.zoo.sample import prepare_sample, sample_picture

CONFIG = """
[model]
onnx = "{onnx}"
labels = "{labels}"
input = {{size = 224, resize = 256, interpolation = "bicubic", mean = 0.498, std = 0.502, mean_colour = 0.498}}
[explainers]
guided_backprop.enabled = false
deconvolution.enabled = false
occlusion.enabled = false
rise.enabled = false
[evaluator]
metrics = ["localization/pointing_game", "localization/iosr"]
"""
EGYPTIAN_CAT, ESPRESSO, MISSILE = 285, 967, 657
WHERE = {
    # Left, top, right and bottom in pixels of the photographs, by eye.
    "chelsea": (EGYPTIAN_CAT, (100, 10, 430, 290)),
    "coffee": (ESPRESSO, (150, 40, 470, 320)),
    "rocket": (MISSILE, (290, 60, 350, 330)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    files = prepare_sample(report=lambda line: None)
    (folder / "sidecar.toml").write_text(CONFIG.format(onnx=files.onnx, labels=files.labels))
    (folder / "images").mkdir()
    images, annotations = [], []
    for number, (name, (class_id, (left, top, right, bottom))) in enumerate(WHERE.items()):
        path = sample_picture(name)
        (folder / "images" / f"{name}.jpg").write_bytes(path.read_bytes())
        images.append({"id": number, "file_name": f"{name}.jpg"})
        box = [left, top, right - left, bottom - top]
        annotations.append({"id": number, "image_id": number, "category_id": class_id, "bbox": box})
    annotations.append({"id": 9, "image_id": 0, "category_id": ESPRESSO, "bbox": [9000, 9000, 5, 5]})
    content = sample_picture("coffee").read_bytes()
    broken = {"cut.jpg": content[: len(content) // 3], "text.jpg": b"no picture", "empty.png": b"", "gone.jpg": None}
    for number, (name, data) in enumerate(broken.items(), 10):
        images.insert(0, {"id": number, "file_name": name})
        if data is not None:
            (folder / "images" / name).write_bytes(data)
    categories = [{"id": class_id, "name": str(class_id)} for class_id in (EGYPTIAN_CAT, ESPRESSO, MISSILE)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def done(folder):
    command = [launcher.PYTHON, "-m", "xai_sidecar", "run", "--config", "sidecar.toml", "--data", "boxes.json"]
    return launcher.run([*command, "--out", "run", "--targets", "true"], cwd=folder, capture_output=True, text=True)


def test_what_is_broken_is_said_and_the_rest_is_measured(folder, done):
    assert done.returncode == 3, done.stderr
    found = json.loads((folder / "run" / "summary.json").read_text())
    assert found["pictures"] == 3
    problems = {each["name"]: each["why"] for each in found["skipped"]}
    assert list(problems) == ["gone.jpg", "empty.png", "text.jpg", "cut.jpg"]
    assert problems["gone.jpg"] == "It cannot be opened: No such file or directory."
    assert all(problems.values())
    assert [note for note in found["notes"] if "chelsea.jpg is left out" in note]
    assert found["accuracy"]["pictures"] == 3
    assert "Traceback" not in done.stderr


def test_localization_is_by_the_boxes_of_the_photographs(folder, done):
    with (folder / "run" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = {
        (row["name"], int(row["target"]), row["explainer"]): float(row["value"])
        for row in rows
        if row["metric"] == "localization/pointing_game"
    }
    store = Store.open(f"sqlite:///{folder / 'run' / 'store.sqlite'}", max_bytes=1 << 30, retention_seconds=1e11)
    tried = 0
    with closing(store):
        for name, (class_id, box) in WHERE.items():
            key = next(each for each, _ in store.states() if each.request_id == f"{name}.jpg" and
                       store.sample(each).target == class_id)  # fmt: skip
            frame = store.sample(key).frame
            with Image.open(folder / "images" / f"{name}.jpg") as picture:
                assert frame.picture_size == picture.size
            for each in store.maps(SampleKey(*key)):
                if (each.saliency == each.saliency.max()).sum() > 1:  # of which part may hit
                    continue
                row, column = divmod(int(each.saliency.argmax()), each.saliency.shape[1])
                # Where the largest value lies on the photograph, worked out from the crop alone.
                region = frame.region
                x = region.left + (column + 0.5) * (region.right - region.left) / frame.width
                y = region.top + (row + 0.5) * (region.bottom - region.top) / frame.height
                margin = 15 * (region.right - region.left) / frame.width
                left, top, right, bottom = box
                inside = left <= x <= right and top <= y <= bottom
                near = left - margin - 2 <= x <= right + margin + 2 and top - margin - 2 <= y <= bottom + margin + 2
                score = scores[f"{name}.jpg", class_id, each.explainer]
                if inside:
                    assert score == 1, (name, each.explainer)
                    tried += 1
                elif not near:
                    assert score == 0, (name, each.explainer)
                    tried += 1
    assert tried >= 6, tried
