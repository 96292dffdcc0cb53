"""The OoD head: scores worked out on paper, and files that are whole or refused."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from xai_sidecar.errors import ConfigError
from xai_sidecar.ood import OodHead, TrainingRecord, check_head, load_head, save_head

RECORD = TrainingRecord(
    sample_count=12,
    time=1700000000.5,
    auroc={"noise": 1.0, "masked": 0.75},
    classifier_version="abc",
    feature_count=2,
    class_count=10,
    labels="folders",
    folder="pictures",
    epochs=90,
    seed=3,
)


def a_head(**changes):
    """Two classes, along (3, 4) and (0, -2)."""
    head = OodHead(
        weights=np.array([[3, 4], [0, -2]], np.float32),
        class_ids=np.array([2, 7], np.int32),
        reference_scores=np.array([0.5, 0.6, 0.6, 0.9], np.float32),
        training=RECORD,
    )
    return replace(head, **changes)


def floats(*values):
    return np.array(values, np.float32)


def test_a_class_score_is_the_cosine_with_its_weights():
    # (4, 3) · (3, 4) = 24 over lengths 5 and 5; (4, 3) · (0, -2) = -6 over 5 and 2.
    features = floats([4, 3], [6, 8], [0, -1])
    expected = [[0.96, -0.6], [1, -0.8], [-0.8, 1]]
    scores = a_head().class_scores(features)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_allclose(a_head().scores(features), [0.96, 1, 1], atol=1e-6)


def test_scores_stay_in_range_whatever_the_lengths():
    head = a_head(weights=floats([3e-20, 4e-20], [0, -2e30]))
    np.testing.assert_allclose(head.scores(floats([4e30, 3e30], [4e-30, 3e-30])), [0.96, 0.96], atol=1e-6)
    many = np.random.default_rng(0).standard_normal((1000, 2)).astype(np.float32)
    assert np.abs(head.class_scores(many)).max() <= 1


def test_scores_do_not_depend_on_the_rows_beside():
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((20, 300)).astype(np.float32)
    features = generator.standard_normal((40, 300)).astype(np.float32)
    head = a_head(weights=weights, class_ids=np.arange(20, dtype=np.int32))
    together = head.class_scores(features)
    for count in (1, 2, 5, 8):
        parts = [head.class_scores(features[start : start + count]) for start in range(0, 40, count)]
        np.testing.assert_array_equal(np.concatenate(parts), together)


def test_zero_features_score_zero_and_nan_stays_nan():
    assert a_head().class_scores(floats([0, 0])).tolist() == [[0, 0]]
    assert np.isnan(a_head().scores(floats([np.nan, 1], [np.inf, 1]))).all()


def test_a_percentile_is_the_share_of_reference_scores_that_are_lower():
    scores = floats(0.4, 0.5, 0.55, 0.6, 0.7, 0.95, np.nan)
    np.testing.assert_array_equal(a_head().percentiles(scores), floats(0, 0, 25, 25, 75, 100, np.nan))


def test_a_head_comes_back_as_it_was_saved(tmp_path):
    path = tmp_path / "new" / "ood.safetensors"
    save_head(path, a_head())
    loaded = load_head(path)
    for name in ("weights", "class_ids", "reference_scores"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(a_head(), name))
        assert getattr(loaded, name).dtype == getattr(a_head(), name).dtype
    assert loaded.training == RECORD
    assert [entry.name for entry in path.parent.iterdir()] == ["ood.safetensors"]


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "ood.safetensors"
    save_head(path, a_head())
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left") as caught:
        save_head(path, a_head(weights=floats([1, 1], [1, 2])))
    assert caught.value.field == "ood.checkpoint"
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["ood.safetensors"]


def refused(path, saying):
    with pytest.raises(ConfigError, match=saying) as caught:
        load_head(path)
    assert caught.value.field == "ood.checkpoint"
    assert "xai-sidecar train-ood" in caught.value.message
    assert str(path) in caught.value.message


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "ood.safetensors"
    refused(path, "No such file")
    refused(tmp_path, "Is a directory")
    for content in (b"", b"PK\x03\x04 a zip", bytes(1000)):
        path.write_bytes(content)
        refused(path, r"no .safetensors file")
    safetensors.numpy.save_file({"weights": np.zeros((2, 2), np.float32)}, path)
    refused(path, "no OoD net's file: it calls itself nothing")
    safetensors.numpy.save_file({"weights": np.zeros((2, 2), np.float32)}, path, {"format": "pt"})
    refused(path, "calls itself 'pt'")


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "ood.safetensors"
    save_head(path, a_head())
    whole = path.read_bytes()
    for cut in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refused(path, "safetensors")
    for place in range(len(whole) - 40, len(whole), 7):  # among the numbers
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused(path, "damaged")
    path.write_bytes(whole.replace(b'\\"epochs\\": 90', b'\\"epochs\\": []'))
    refused(path, "record of the training has 1 faults")


@pytest.mark.parametrize(
    ("changes", "saying"),
    [
        ({"weights": floats([1, np.nan], [1, 2])}, "NaN or infinite"),
        ({"reference_scores": floats(0.1, np.inf)}, "NaN or infinite"),
        ({"reference_scores": floats(0.2, 0.1)}, "not in order"),
        ({"reference_scores": floats()}, "reference scores of shape"),
        ({"class_ids": np.array([2, 2], np.int32)}, "class ids"),
        ({"class_ids": np.array([2, 10], np.int32)}, "class ids"),
        ({"class_ids": np.array([2], np.int32)}, "2 rows of weights, class ids of shape"),
        ({"weights": floats([1, 2, 3], [1, 2, 3])}, "for 2 features"),
    ],
)
def test_a_file_of_impossible_values_is_refused(tmp_path, changes, saying):
    path = tmp_path / "ood.safetensors"
    save_head(path, a_head(**changes))
    refused(path, saying)


def test_the_record_is_readable_without_this_program(tmp_path):
    path = tmp_path / "ood.safetensors"
    save_head(path, a_head())
    with safetensors.safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["training"])["auroc"] == {"noise": 1.0, "masked": 0.75}


def test_a_head_of_another_classifier_is_refused():
    check_head(a_head(), "abc")
    with pytest.raises(ConfigError, match="version abc, and this one is abd") as caught:
        check_head(a_head(), "abd")
    assert caught.value.field == "ood.checkpoint"
