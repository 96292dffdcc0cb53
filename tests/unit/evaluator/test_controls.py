"""Controls: maps that know nothing of the model, and what metrics give to them."""

import numpy as np
import pytest
from scipy.ndimage import sobel

from xai_sidecar.engine.batching import masked
from xai_sidecar.engine.work import drive
from xai_sidecar.evaluator.controls import CONTROLS, VETOING_CONTROL
from xai_sidecar.evaluator.store.arrays import pack
from xai_sidecar.explainers.activations import softmax
from xai_sidecar.explainers.base import Context, MapStatus, ModelFacts
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.metrics.instance import ExplainerCall, Instance
from xai_sidecar.picture_units import PictureUnits

NAMES = ("control/random", "control/fixed", "control/blob", "control/edges")
EVERY = pytest.mark.parametrize("name", NAMES)
IMAGE = np.random.default_rng(0).normal(0, 1, (3, 30, 40)).astype(np.float32)
OTHER = IMAGE + np.float32(1e-3)


def nothing(*arguments):
    raise AssertionError("a control asks for no pass")


def maps(name, image=IMAGE, targets=(0, 1), seed=3, units=None):
    control, parameters = CONTROLS[name]
    context = Context(softmax, seed, units or PictureUnits())
    return drive(control.explain(image, np.array(targets, np.int32), parameters, context), nothing)


def correlated(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


def test_there_are_these_and_nobody_can_ask_for_them():
    assert tuple(CONTROLS) == NAMES
    assert VETOING_CONTROL in CONTROLS
    assert not set(CONTROLS) & set(installed_explainers())


@EVERY
def test_a_control_is_an_explainer_without_passes(name):
    control, parameters = CONTROLS[name]
    assert control.description.endswith(".")
    assert control.pass_counts(2, parameters, ModelFacts(30, 40)).most == 0
    found = maps(name)
    assert (found.maps.shape, found.maps.dtype) == ((2, 30, 40), np.float32)
    assert set(found.statuses) == {MapStatus.OK}
    np.testing.assert_array_equal(found.maps, maps(name).maps)


def test_noise_is_drawn_anew_for_each_picture_class_and_sample():
    one, two = maps("control/random").maps
    for other in (two, maps("control/random", OTHER).maps[0], maps("control/random", seed=4).maps[0]):
        assert abs(correlated(one, other)) < 4 / np.sqrt(1200)
    np.testing.assert_array_equal(two, maps("control/random", targets=(5, 1)).maps[1])
    assert abs(one.mean()) < 4 * one.std() / np.sqrt(1200)


def test_fixed_noise_is_the_samples_alone():
    one, two = maps("control/fixed").maps
    for other in (two, maps("control/fixed", OTHER).maps[0]):
        np.testing.assert_array_equal(one, other)
    assert abs(correlated(one, maps("control/fixed", seed=4).maps[0])) < 4 / np.sqrt(1200)
    assert abs(correlated(one, maps("control/random").maps[0])) < 4 / np.sqrt(1200)


def test_noise_takes_a_quarter_of_the_room():
    saliency = maps("control/random", np.zeros((3, 224, 224), np.float32)).maps[0]
    assert len(pack(saliency)) < saliency.nbytes / 3


def test_the_blob_is_in_the_middle():
    blob = maps("control/blob").maps[0]
    assert np.unravel_index(blob.argmax(), blob.shape) in {(14, 19), (14, 20), (15, 19), (15, 20)}
    np.testing.assert_allclose(blob, blob[::-1, ::-1], rtol=1e-6)
    # A standard deviation of a quarter: from the middle to a place a quarter of the width away it falls by exp(-1/2).
    assert blob[14, 9] / blob[14, 19] == pytest.approx(np.exp(-8 * ((10.5 / 40) ** 2 - (0.5 / 40) ** 2)), rel=1e-5)


def test_the_edges_are_sobels():
    grey = IMAGE.astype(np.float64).mean(axis=0)
    expected = np.hypot(sobel(grey, 0, mode="nearest"), sobel(grey, 1, mode="nearest"))
    np.testing.assert_allclose(maps("control/edges").maps[0], expected, rtol=1e-5)


def test_the_edges_are_the_pictures_whatever_the_normalisation():
    units = PictureUnits((0.5, 0.4, 0.3), (0.5, 0.25, 2.0))
    picture = IMAGE * np.array([0.5, 0.25, 2.0])[:, None, None] + np.array([0.5, 0.4, 0.3])[:, None, None]
    np.testing.assert_allclose(
        maps("control/edges", units=units).maps, maps("control/edges", picture.astype(np.float32)).maps, rtol=1e-3
    )


# ------------------------------------------------------------------------------------------------ what they score


def run(kind, rows):
    """Three classes that look at a corner each."""
    images = masked(*rows) if kind.name == "masked_forward" else rows[0]
    corners = (np.s_[:, :, :15, :20], np.s_[:, :, 15:, :20], np.s_[:, :, :15, 20:])
    return (np.stack([images[corner].mean(axis=(1, 2, 3)) for corner in corners], axis=1).astype(np.float32) * 9,)


def score(name, metric, seed=3):
    measure, call = installed_metrics()[metric], ExplainerCall(*CONTROLS[name], seed=seed)
    instance = Instance(IMAGE, 0, maps(name, seed=seed).maps[0], call)
    return drive(measure.measure(instance, measure.parameters_type(), Context(softmax, seed)), run).value


def test_noise_cannot_win_class_sensitivity_and_what_never_changes_cannot_win_robustness():
    """These are the scores that are to be had for nothing; √2 is how far apart unrelated maps of mean zero are."""
    sensitivity = {name: score(name, "class_sensitivity") for name in NAMES}
    assert sensitivity == {
        "control/random": pytest.approx(0.5, abs=0.06),
        "control/fixed": 0,
        "control/blob": 0,
        "control/edges": 0,
    }
    robustness = {name: score(name, "robustness") for name in NAMES}
    assert robustness["control/fixed"] == robustness["control/blob"] == 1
    assert robustness["control/random"] == pytest.approx(np.exp(-np.sqrt(2)), abs=0.02)


def test_noise_scores_nothing_by_srg():
    found = [score("control/random", "faithfulness/srg", seed) for seed in range(12)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(12)
