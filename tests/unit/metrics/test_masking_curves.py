"""Curves are what scores are made of, and the SDK finds the same pixels by what it is told of them."""

import numpy as np
import pytest

from xai_client import ArgumentError, MaskingCurve
from xai_sidecar.engine.batching import masked
from xai_sidecar.engine.work import drive
from xai_sidecar.explainers.activations import softmax
from xai_sidecar.explainers.base import Context
from xai_sidecar.metrics.faithfulness import DeletionAuc, InsertionAuc, area
from xai_sidecar.metrics.instance import Instance
from xai_sidecar.metrics.perturbation import PerturbationParameters, StepParameters, ranked
from xai_sidecar.metrics.srg import Srg

SIDE, CLASSES, SEED = 6, 3, 77
GENERATOR = np.random.default_rng(0)
WEIGHTS = GENERATOR.standard_normal((CLASSES, 1, SIDE, SIDE)).astype(np.float32)
IMAGE = GENERATOR.standard_normal((1, SIDE, SIDE)).astype(np.float32)
TIED = np.repeat(np.arange(12, dtype=np.float32), 3).reshape(SIDE, SIDE)
"""A map on which three pixels each are equally salient."""


def probability(image, target=1):
    logits = np.tensordot(WEIGHTS, image, 3).astype(np.float64)
    return float((np.exp(logits) / np.exp(logits).sum())[target])


def run(kind, rows):
    """Masked passes of a linear model."""
    return (np.stack([np.tensordot(WEIGHTS, copy, 3) for copy in masked(*rows)]).astype(np.float32),)


def measured(metric, parameters):
    instance = Instance(IMAGE, 1, TIED, shared={})
    return drive(metric.measure(instance, parameters, Context(softmax, SEED)), run)


def client_curve(curve):
    return MaskingCurve(
        curve.kind, curve.fill, tuple(curve.pixel_counts.tolist()), tuple(curve.probabilities), curve.tie_seed, 0.0
    )


def test_the_sdk_orders_pixels_as_the_metrics_do():
    for seed in (0, SEED, 2**32 - 1):
        curve = MaskingCurve("deletion", "black", (0, 36), (1.0, 0.0), seed, 0.5)
        np.testing.assert_array_equal(curve.order(TIED), ranked(TIED, seed))


def test_srg_is_made_of_both_curves():
    score = measured(Srg(), StepParameters(steps=9))
    curves = {curve.kind: curve for curve in score.curves}
    assert set(curves) == {"deletion", "insertion"}
    insertion, deletion = (area(curves[kind].probabilities) for kind in ("insertion", "deletion"))
    assert score.value == pytest.approx(insertion - deletion)


@pytest.mark.parametrize(
    ("metric", "parameters"),
    [
        (Srg(), StepParameters(steps=9)),
        (DeletionAuc(), PerturbationParameters(steps=9)),
        (InsertionAuc(), PerturbationParameters(steps=9)),
        (DeletionAuc(), PerturbationParameters(protocol="mindspore_xai")),
    ],
)
def test_each_step_is_the_picture_that_the_sdk_shows(metric, parameters):
    """The probability at a step is that of the picture with the pixels covered that `shown` says."""
    for curve in measured(metric, parameters).curves:
        assert (curve.pixel_counts[0], curve.fill) == (0, "mean_colour")
        client = client_curve(curve)
        for step, height in enumerate(curve.probabilities):
            shown = client.shown(TIED, step)
            changed = curve.pixel_counts[step]
            assert shown.sum() == (changed if curve.kind == "insertion" else TIED.size - changed)
            assert height == pytest.approx(probability(np.where(shown, IMAGE, 0)), abs=1e-6)


def test_the_area_is_the_score_of_the_curve():
    for metric in (DeletionAuc(), InsertionAuc()):
        score = measured(metric, PerturbationParameters(steps=5))
        (curve,) = score.curves
        assert (curve.kind, score.value) == (metric.curve_kind, pytest.approx(area(curve.probabilities)))


def test_there_is_no_step_beyond_the_last():
    curve = MaskingCurve("deletion", "black", (0, 36), (1.0, 0.0), 1, 0.5)
    assert not curve.shown(TIED, 1).any()
    for step in (-1, 2):
        with pytest.raises(ArgumentError, match="0 to 1"):
            curve.shown(TIED, step)
