"""What may be measured, and what is refused."""

import numpy as np
import pydantic
import pytest

from xai_sidecar.errors import TargetError, TensorError
from xai_sidecar.explainers.base import ModelFacts
from xai_sidecar.metrics.class_sensitivity import ClassSensitivity, ClassSensitivityParameters
from xai_sidecar.metrics.instance import Instance
from xai_sidecar.metrics.localization import IosrParameters, PointingGameParameters
from xai_sidecar.metrics.perturbation import PerturbationParameters
from xai_sidecar.metrics.robustness import Robustness, RobustnessParameters

IMAGE = np.zeros((3, 8, 12), np.float32)
MAP = np.zeros((8, 12), np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int32, bool])
def test_maps_of_any_real_numbers(dtype):
    assert Instance(IMAGE, 0, MAP.astype(dtype)).frame == (8, 12)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"image": IMAGE[0]}, "image"),
        ({"image": IMAGE[None]}, "image"),
        ({"image": IMAGE.astype(np.float64)}, "image"),
        ({"image": IMAGE[:, :0]}, "image"),
        ({"saliency": MAP.T}, "saliency"),
        ({"saliency": MAP[None]}, "saliency"),
        ({"saliency": MAP.astype(complex)}, "saliency"),
        ({"saliency": MAP.astype(str)}, "saliency"),
        ({"logits": np.zeros((1, 4))}, "logits"),
        ({"objects": [np.zeros((8, 12))]}, "objects[0]"),
        ({"objects": [np.zeros((8, 12), bool), np.zeros((12, 8), bool)]}, "objects[1]"),
        ({"objects": [np.zeros((1, 8, 12), bool)]}, "objects[0]"),
        ({"objects": [(0, 0, 1)]}, "objects[0]"),
        ({"objects": [np.zeros(5)]}, "objects[0]"),
        ({"objects": [(0, 0, np.nan, 1)]}, "objects[0]"),
        ({"objects": [(0, 0, np.inf, 1)]}, "objects[0]"),
        ({"objects": [(5, 0, 5, 1)]}, "objects[0]"),
        ({"objects": [(0, 4, 5, 1)]}, "objects[0]"),
    ],
)
def test_what_does_not_fit_is_named(values, field):
    with pytest.raises(TensorError) as caught:
        Instance(**{"image": IMAGE, "target": 0, **values})
    assert caught.value.field == field


def test_targets_that_are_not_there():
    with pytest.raises(TargetError):
        Instance(IMAGE, -1)
    with pytest.raises(TargetError, match="0 to 3"):
        Instance(IMAGE, 4, logits=np.full(4, 0.25))
    Instance(IMAGE, 3, logits=np.full(4, 0.25))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (PerturbationParameters, {"protocol": "zero"}),
        (PointingGameParameters, {"tolerance": -1}),
        (PointingGameParameters, {"tolerance": 1.5}),
        (IosrParameters, {"threshold": 1.0}),
        (RobustnessParameters, {"draw_count": 0}),
        (RobustnessParameters, {"radius": 0.0}),
        (ClassSensitivityParameters, {"radius": 0.1}),
    ],
)
def test_parameters_out_of_range(kind, values):
    with pytest.raises(pydantic.ValidationError):
        kind(**values)


@pytest.mark.parametrize("metric", [Robustness(), ClassSensitivity()], ids=lambda b: b.name)
def test_the_cost_of_explaining_again_needs_the_explainer(metric):
    with pytest.raises(ValueError, match="explainer call"):
        metric.pass_count(metric.parameters_type(), ModelFacts(8, 12))
