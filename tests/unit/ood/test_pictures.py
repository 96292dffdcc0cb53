"""Which files count as pictures, and which class they are of."""

import re

import numpy as np
import pytest
from PIL import Image

from xai_sidecar.errors import ConfigError
from xai_sidecar.imaging import InputSpec
from xai_sidecar.ood.pictures import find_pictures, read_input

LABELS = ["cat", "dog", "7", "tea pot"]
SPEC = InputSpec(3, 8, 8, 8, 8, False, "bilinear", (0, 0, 0), (1, 1, 1))


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def some(prefix, count):
    return [f"{prefix}{index}.png" for index in range(count)]


def refused(folder, saying, labels=LABELS):
    with pytest.raises(ConfigError, match=saying) as caught:
        find_pictures(folder, labels, 4)
    assert caught.value.field == "data"


def test_pictures_alone_have_no_classes(tmp_path):
    touch(tmp_path, *some("b", 6), *some("a", 4), "c.JPG", "c.jpeg", "notes.txt", ".hidden.png", "._c.jpg", "empty/x")
    found = find_pictures(tmp_path, LABELS, 4)
    assert [path.name for path in found.paths] == [*some("a", 4), *some("b", 6), "c.JPG", "c.jpeg"]
    assert found.class_ids is None


def test_folders_are_classes_by_label_or_id(tmp_path):
    touch(tmp_path, *some("tea pot/", 3), *some("cat/deep/er/", 2), *some("cat/", 2), *some("01/", 2), *some("7/", 1))
    touch(tmp_path, "readme.md", ".git/x.png", "cat/.thumbs/x.png", "cat/list.csv", "attic/none.txt")
    found = find_pictures(tmp_path, LABELS, 4)
    got = [
        (str(path.relative_to(tmp_path)), class_id) for path, class_id in zip(found.paths, found.class_ids, strict=True)
    ]
    assert got == [
        ("01/0.png", 1),
        ("01/1.png", 1),
        ("7/0.png", 2),  # the label goes before the id
        ("cat/0.png", 0),
        ("cat/1.png", 0),
        ("cat/deep/er/0.png", 0),
        ("cat/deep/er/1.png", 0),
        ("tea pot/0.png", 3),
        ("tea pot/1.png", 3),
        ("tea pot/2.png", 3),
    ]


def test_unknown_folders_are_named_with_the_cure(tmp_path):
    touch(tmp_path, *some("cat/", 10), *(f"n{index}/x.png" for index in range(5)), "4/x.png", "-1/x.png", "²/x.png")
    refused(
        tmp_path, r"folders '-1', '4', 'n0' and 5 more .*labels, such as 'cat', or to class ids from 0 to 3, or put"
    )
    refused(tmp_path, "Rename them to its labels, to class ids", labels=[])


def test_a_label_that_several_classes_have_needs_the_id(tmp_path):
    touch(tmp_path, *some("crane/", 10), *some("2/", 2))
    refused(tmp_path, "a folder 'crane', and several classes", labels=["crane", "dog", "crane", "pot"])


def test_folders_beside_pictures_are_refused(tmp_path):
    touch(tmp_path, *some("cat/", 10), "stray.png")
    refused(tmp_path, "both pictures, such as stray.png, and folders of them, such as cat")


def test_too_few_pictures_are_refused(tmp_path):
    refused(tmp_path / "none", "is no folder")
    refused(tmp_path, "has 0 pictures .* at least 10")
    touch(tmp_path, *some("", 9))
    refused(tmp_path, "has 9 pictures")
    refused(tmp_path / "0.png", "is no folder")


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    touch(tmp_path, *some("cat/", 10))

    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", str(folder)))
        yield from ()

    monkeypatch.setattr("xai_sidecar.ood.pictures.os.walk", walk)
    refused(tmp_path, f"cannot be searched: .*Permission denied: '{re.escape(str(tmp_path))}/cat'")


def test_a_picture_is_read_as_the_classifier_takes_it(tmp_path):
    Image.new("RGB", (20, 10), (255, 51, 0)).save(tmp_path / "a.png")
    array = read_input(tmp_path / "a.png", SPEC)
    np.testing.assert_allclose(array, np.broadcast_to(np.array([1, 0.2, 0])[:, None, None], (3, 8, 8)), atol=1e-6)


def test_what_is_no_picture_is_none(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "b.png").mkdir()
    assert [read_input(tmp_path / name, SPEC) for name in ("a.png", "b.png", "c.png")] == [None, None, None]


def test_folders_with_blanks_and_accents_as_file_systems_write_them(tmp_path):
    touch(tmp_path, *some("cat /", 5), *some("cafe\u0301/", 5))
    assert find_pictures(tmp_path, ["cat", "caf\u00e9"], 2).class_ids == (1,) * 5 + (0,) * 5
