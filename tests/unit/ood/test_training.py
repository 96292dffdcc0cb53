"""Training from a folder, with a classifier whose features are worked out by hand, and no MindSpore."""

import time
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from xai_sidecar.engine.work import Featured
from xai_sidecar.errors import ConfigError
from xai_sidecar.imaging import InputSpec
from xai_sidecar.ood import TrainingOptions, load_head, train_ood
from xai_sidecar.ood.pictures import read_input
from xai_sidecar.ood.training import hold_out

SPEC = InputSpec(3, 16, 16, 16, 16, False, "bilinear", (0.5,) * 3, (0.5,) * 3)
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class Classifier:
    """Tells colours: its features are the mean of each channel, and how much pixels differ; it counts its work."""

    version = "v1"
    labels = tuple(COLOURS)
    class_count = 3
    spec = SPEC

    def __init__(self):
        self.rows = 0
        self.limit = np.inf

    def featured(self, inputs):
        assert inputs.dtype == np.float32
        assert inputs.shape[1:] == (3, 16, 16)
        if self.rows + len(inputs) > self.limit:
            raise KeyboardInterrupt
        self.rows += len(inputs)
        means = inputs.mean(axis=(2, 3))
        rough = np.abs(np.diff(inputs, axis=3)).mean(axis=(1, 2, 3))
        return Featured(np.column_stack([means + 1, rough]).astype(np.float32), means)


@dataclass(frozen=True)
class Fitted:
    weights: np.ndarray


class Fit:
    """The centres of the classes: no training, but it learns what it is given."""

    def __init__(self):
        self.calls = []

    def __call__(self, features, labels, *, epochs, batch_size, seed, state, report, stop):
        self.calls.append((features, labels, epochs, batch_size, seed, state))
        if stop():
            raise KeyboardInterrupt
        report(epochs, 0.5, 1.0)
        return Fitted(np.stack([features[labels == label].mean(axis=0) for label in range(labels.max() + 1)]))


def draw(folder, counts, seed=0):
    """Pictures of nearly one colour."""
    generator = np.random.default_rng(seed)
    for (name, colour), count in zip(COLOURS.items(), counts, strict=True):
        for index in range(count):
            pixels = np.clip(np.array(colour) + generator.integers(-30, 30, (20, 24, 3)), 0, 255)
            path = folder / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.fixture
def pictures(tmp_path):
    return draw(tmp_path / "data", (60, 50, 40))


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def trained(tmp_path, folder, classifier=None, fit=None, options=None, **more):
    out = tmp_path / "out" / "ood.safetensors"
    return train_ood(folder, out, classifier or Classifier(), tmp_path / "cache", fit or Fit(), options, **more)


def test_a_folder_becomes_a_head(tmp_path, pictures):
    fit, steps = Fit(), []
    options = TrainingOptions(epochs=7, batch_size=32, seed=4, outlier_pictures=20)
    before = time.time()
    head = trained(tmp_path, pictures, fit=fit, options=options, progress=steps.append)
    (features, labels, *given) = fit.calls[0]
    assert features.dtype == np.float32
    assert labels.dtype == np.int32
    assert np.bincount(labels).tolist() == [48, 40, 32]  # four fifths of each class
    assert given[:3] == [7, 32, 4]
    assert head.class_ids.tolist() == [0, 1, 2]
    assert len(head.reference_scores) == 30
    assert (np.diff(head.reference_scores) >= 0).all()
    assert set(head.training.auroc) == {"noise", "shuffled", "masked"}
    assert head.training.auroc["noise"] > 0.8
    assert abs(head.training.auroc["shuffled"] - 0.5) < 0.2  # patches of one colour in another order are no outliers
    record = head.training
    assert (record.sample_count, record.feature_count, record.class_count) == (150, 4, 3)
    assert (record.labels, record.folder, record.classifier_version) == ("folders", "data", "v1")
    assert (record.epochs, record.seed) == (7, 4)
    assert before <= record.time <= time.time()
    assert [(step.stage, step.done, step.total) for step in steps] == [
        ("features of pictures", 0, 150),
        ("features of pictures", 64, 150),
        ("features of pictures", 128, 150),
        ("features of pictures", 150, 150),
        ("training", 7, 7),
        ("features of outliers", 0, 20),
        ("features of outliers", 20, 20),
    ]
    loaded = load_head(tmp_path / "out" / "ood.safetensors")
    assert loaded.training == record
    np.testing.assert_array_equal(loaded.weights, head.weights)


def test_reference_scores_are_those_of_the_pictures_held_out(tmp_path, pictures):
    fit = Fit()
    head = trained(tmp_path, pictures, fit=fit)
    learned = {row.tobytes() for row in fit.calls[0][0]}
    inputs = np.stack([read_input(path, SPEC) for path in pictures.rglob("*.png")])
    others = [row for row in Classifier().featured(inputs).features if row.tobytes() not in learned]
    assert len(others) == 30
    np.testing.assert_array_equal(head.reference_scores, np.sort(head.scores(np.stack(others))))


def test_without_folders_the_predictions_are_the_classes(tmp_path, pictures):
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, path in enumerate(sorted(pictures.rglob("*.png"))):
        path.rename(flat / f"{index:03d}.png")
    fit = Fit()
    head = trained(tmp_path, flat, fit=fit)
    assert head.training.labels == "predictions"
    assert np.bincount(fit.calls[0][1]).tolist() == [48, 40, 32]


def test_only_classes_that_occur_are_learned(tmp_path):
    head = trained(tmp_path, draw(tmp_path / "data", (10, 0, 10)))
    assert head.class_ids.tolist() == [0, 2]
    assert head.weights.shape == (2, 4)


def test_what_was_computed_is_not_computed_again(tmp_path, pictures):
    first = trained(tmp_path, pictures)
    classifier = Classifier()
    again = trained(tmp_path, pictures, classifier)
    assert classifier.rows == 0
    np.testing.assert_array_equal(again.reference_scores, first.reference_scores)
    assert again.training.auroc == first.training.auroc
    trained(tmp_path, pictures, classifier, options=TrainingOptions(seed=1))
    assert classifier.rows == 3 * 30  # other pictures held out, other outliers; the same features


@pytest.mark.parametrize("change", ["version", "spec", "picture", "name", "one less"])
def test_anything_else_is_computed_anew(tmp_path, pictures, change):
    trained(tmp_path, pictures)
    classifier = Classifier()
    if change == "version":
        classifier.version = "v2"
    if change == "spec":
        classifier.spec = InputSpec(3, 16, 16, 18, 18, False, "bilinear", (0.5,) * 3, (0.5,) * 3)
    if change == "picture":
        Image.new("RGB", (9, 9), "red").save(pictures / "red" / "0.png")
    if change == "name":
        (pictures / "red" / "0.png").rename(pictures / "red" / "zero.png")
    if change == "one less":
        (pictures / "red" / "0.png").unlink()
    trained(tmp_path, pictures, classifier)
    assert classifier.rows >= 149


@pytest.mark.parametrize("limit", [0, 63, 64, 130, 150, 160, 239])
def test_an_interruption_costs_one_shard_at_most(tmp_path, pictures, limit):
    whole = trained(tmp_path / "whole", pictures)
    classifier, lines, steps = Classifier(), [], []
    classifier.limit = limit
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, pictures, classifier, report=lines.append)
    assert not (tmp_path / "out" / "ood.safetensors").exists()
    assert str(tmp_path / "cache") in lines[-1]
    assert "start the same again" in lines[-1]
    kept = min(limit, 128) // 64 * 64 if limit < 150 else 150
    classifier.limit = np.inf
    resumed = trained(tmp_path, pictures, classifier, progress=steps.append)
    assert steps[0].done == kept
    assert classifier.rows <= 150 + 3 * 30 + 3 * 64
    np.testing.assert_array_equal(resumed.weights, whole.weights)
    np.testing.assert_array_equal(resumed.reference_scores, whole.reference_scores)
    assert resumed.training.auroc == whole.training.auroc


@pytest.mark.parametrize("asked", range(5))
def test_stopping_is_an_interruption_in_order(tmp_path, pictures, asked):
    answers = iter([False] * asked)
    lines = []
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, pictures, report=lines.append, stop=lambda: next(answers, True))
    assert "start the same again" in lines[-1]
    classifier = Classifier()
    trained(tmp_path, pictures, classifier)
    assert classifier.rows == 150 - min(150, 64 * asked) + 90


def test_a_damaged_shard_is_made_again(tmp_path, pictures):
    whole = trained(tmp_path, pictures)
    (shard,) = (tmp_path / "cache").rglob("000001.npz")
    content = shard.read_bytes()
    for damaged in (content[:100], b"", bytes(len(content)), flipped(content, 400)):
        shard.write_bytes(damaged)
        classifier = Classifier()
        head = trained(tmp_path, pictures, classifier)
        assert classifier.rows == 64
        np.testing.assert_array_equal(head.weights, whole.weights)


def test_pictures_that_cannot_be_read_are_left_out_and_told(tmp_path, pictures):
    for index in range(5):
        (pictures / "red" / f"{index}.png").write_bytes(b"no picture")
    lines = []
    head = trained(tmp_path, pictures, report=lines.append)
    assert head.training.sample_count == 145
    assert lines == ["5 of 150 pictures cannot be read and are left out: red/0.png, red/1.png, red/2.png, …"]


def test_too_few_that_can_be_read_are_an_error(tmp_path):
    folder = draw(tmp_path / "data", (10, 10, 0))
    for path in sorted(folder.rglob("*.png"))[9:]:
        path.write_bytes(b"no picture")
    with pytest.raises(ConfigError, match="only 9 of the 20 pictures") as caught:
        trained(tmp_path, folder)
    assert caught.value.field == "data"
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(ConfigError, match="only 0 of the 20 pictures"):
        trained(tmp_path, folder)


def test_one_class_is_not_enough(tmp_path):
    with pytest.raises(ConfigError, match="all of one class, 1") as caught:
        trained(tmp_path, draw(tmp_path / "data", (0, 30, 0)))
    assert caught.value.field == "data"


def test_features_that_are_not_finite_are_an_error(tmp_path, pictures):
    classifier = Classifier()
    classifier.featured = lambda inputs: Featured(np.full((len(inputs), 4), np.nan, np.float32), inputs[:, :, 0, 0])
    with pytest.raises(ConfigError, match="NaN or infinite") as caught:
        trained(tmp_path, pictures, classifier)
    assert caught.value.field == "model.checkpoint"


def test_a_place_that_cannot_be_written_is_an_error_at_once(tmp_path, pictures):
    classifier = Classifier()
    (tmp_path / "file").write_bytes(b"")
    for out in (tmp_path, tmp_path / "file" / "ood.safetensors"):
        with pytest.raises(ConfigError) as caught:
            train_ood(pictures, out, classifier, tmp_path / "cache", Fit())
        assert caught.value.field == "ood.checkpoint"
    with pytest.raises(ConfigError, match="features cannot be kept"):
        train_ood(pictures, tmp_path / "ood", classifier, tmp_path / "file", Fit())
    assert classifier.rows == 0


def test_old_features_make_room(tmp_path, pictures):
    for version in "abcd":
        classifier = Classifier()
        classifier.version = version
        trained(tmp_path, pictures, classifier)
    assert len(list((tmp_path / "cache" / "ood-features").iterdir())) == 2


@pytest.mark.parametrize("field", ["epochs", "batch_size", "seed", "holdout", "outlier_pictures"])
def test_options_out_of_range_are_named(field):
    with pytest.raises(ConfigError, match="Give") as caught:
        TrainingOptions(**{field: -1})
    assert caught.value.field == field


def test_the_share_held_out_is_the_same_in_every_class():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), [100, 50, 10, 5, 1])).astype(np.int32)
    held = hold_out(labels, 0.2, 0)
    np.testing.assert_array_equal(hold_out(labels, 0.2, 0), held)
    assert not np.array_equal(hold_out(labels, 0.2, 1), held)
    counts = np.bincount(labels[held], minlength=5)
    assert counts.sum() == round(0.2 * 166)
    np.testing.assert_allclose(counts, [20, 10, 2, 1, 0], atol=1.01)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.99])
@pytest.mark.parametrize("labels", [[0] * 10, [0] * 9 + [1], [0, 0, 0, 1, 1, 2, 3, 4, 5, 6], list(range(10))])
def test_few_pictures_are_held_out_too_and_no_class_is_lost_without_need(labels, share):
    labels = np.array(labels, np.int32)
    for seed in range(20):
        held = hold_out(labels, share, seed)
        assert 2 <= held.sum() <= 9
        spare = len(labels) - len(np.unique(labels))
        if spare >= 2:
            assert set(labels[~held]) == set(labels)
