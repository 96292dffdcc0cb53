"""The four metrics under MindSpore XAI's names and signatures. A higher score is a better explanation in all of them.

What is better than there: any number of pictures at once, which need not be square, nor their masks; a score that is
not defined is NaN with a warning, not 0; every explainer can be measured by every metric.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.compat.arguments import (
    Inputs,
    Tensor,
    check_cell,
    check_positive,
    check_type,
    to_array,
    to_inputs,
    to_targets,
)
from xai_sidecar.compat.explainers import CellExplainer, SaliencyWarning
from xai_sidecar.compat.measures import FAITHFULNESS, LOCALIZATION, NAMES, PROTOCOL, Measure
from xai_sidecar.compat.model import Compiled, activation_of
from xai_sidecar.engine.work import FloatArray, Steps
from xai_sidecar.explainers.base import Context
from xai_sidecar.metrics.base import Score
from xai_sidecar.metrics.class_sensitivity import ClassSensitivity as _ClassSensitivity
from xai_sidecar.metrics.class_sensitivity import ClassSensitivityParameters
from xai_sidecar.metrics.instance import Instance
from xai_sidecar.metrics.robustness import Robustness as _Robustness
from xai_sidecar.metrics.robustness import RobustnessParameters

_NOISE = 0.2
"""Noise is uniform between minus and plus this, in units of the net's input."""


class CellMetric:
    """The base of all: a metric, and the scores that were aggregated.

    Attributes:
        metric_name: Its name in configs and results.
        metric_parameters: Its parameters there, where they are not the default.
    """

    metric_name: str
    metric_parameters: Mapping[str, Any]

    def __init__(self, activation_fn: nn.Cell | None = None) -> None:
        self._context = Context() if activation_fn is None else Context(activation_of(activation_fn))
        self._scores: list[tuple[int | None, float]] = []

    @property
    def performance(self) -> float:
        """The mean of all finite scores that were aggregated; NaN if there are none."""
        return _mean([score for _, score in self._scores])

    def reset(self) -> None:
        """Forgets what was aggregated."""
        self._scores.clear()

    def _evaluate(self, explainer: Any, pictures: Inputs, net: Compiled, make: Callable[..., Any]) -> Any:
        measured, call = [], explainer.call(net)
        for number, image in enumerate(pictures.images):
            instance, measure = make(number, image, call)
            score = explainer.compute(measure(instance, self._context), net)
            if score.value is None:
                warnings.warn(f"picture {number} has no score: {score.status.value}", SaliencyWarning, stacklevel=4)
            measured.append(math.nan if score.value is None else score.value)
        return pictures.like(np.array(measured))


class ClassMetric(CellMetric):
    """A metric of maps for a class.

    Args:
        num_labels: Classes of the net.
        activation_fn: What turns its logits into probabilities; None where they do not matter.
    """

    def __init__(self, num_labels: int, activation_fn: nn.Cell | None = None) -> None:
        check_positive("num_labels", num_labels)
        super().__init__(activation_fn)
        self._num_labels = num_labels

    @property
    def num_labels(self) -> int:
        """Classes of the net."""
        return self._num_labels

    @property
    def class_performances(self) -> list[float]:
        """For each class the mean of its finite scores that were aggregated; NaN if there are none."""
        return [_mean([score for own, score in self._scores if own == label]) for label in range(self._num_labels)]

    def aggregate(self, result: Any, targets: Tensor | int) -> None:
        """Adds scores, a number or (N,), of pictures for their classes, an int or (N,)."""
        scores = _numbers(result)
        classes = to_targets(targets, len(scores))[:, 0]
        if classes.max() >= self._num_labels:
            raise ValueError(f"there is no class {classes.max()}: num_labels is {self._num_labels}")
        self._scores += zip(classes.tolist(), scores, strict=True)

    def get_results(self) -> dict[int, list[float]]:
        """The scores that were aggregated, by class."""
        return {label: [score for own, score in self._scores if own == label] for label in range(self._num_labels)}

    @abstractmethod
    def _measure(self, objects: Any) -> Measure:
        """What measures an instance with objects."""

    def _measured(self, explainer: Any, inputs: Any, targets: Any, saliency: Any, mask: Any = None) -> Any:
        check_type("explainer", explainer, CellExplainer)
        pictures = to_inputs(inputs)
        images = pictures.images
        classes = to_targets(targets, len(images))
        if classes.shape[1] != 1:
            raise ValueError("targets must be one class for each picture")
        net = explainer.compiled(images.shape[1:])
        if net.class_count != self._num_labels:
            raise ValueError(f"num_labels is {self._num_labels}, and the net has {net.class_count} classes")
        maps = _maps(saliency, images) if saliency is not None else explainer.maps(images, classes, net)[:, 0]
        masks = _masks(mask, images) if mask is not None else None

        def make(number: int, image: FloatArray, call: Any) -> tuple[Instance, Measure]:
            objects = () if masks is None else (masks[number],)
            return Instance(image, int(classes[number, 0]), maps[number], call, objects, shared={}), self._measure(
                objects
            )

        return self._evaluate(explainer, pictures, net, make)


class Faithfulness(ClassMetric):
    """Whether the pixels that a map calls important are those that the net goes by.

    Half of the pixels are changed in √(H W) steps, the most salient first; what is covered is 0. Scores are
    (1 + f) / 2. NaiveFaithfulness: f is the correlation of the saliency of each step's pixels with the drop of the
    probability when only they are covered. DeletionAUC: f is 1 less the area under the probability as pixels are
    covered; MindSpore XAI takes 1 less the area of the *drop*, by which an ideal map has the worst score. InsertionAUC:
    f is the area of what the probability has gained as pixels appear. Areas are by the trapezoidal rule; MindSpore XAI
    leaves out both ends.

    Args:
        num_labels: Classes of the net.
        activation_fn: What turns its logits into probabilities.
        metric: "NaiveFaithfulness", "DeletionAUC" or "InsertionAUC".
    """

    def __init__(self, num_labels: int, activation_fn: nn.Cell, metric: str = "NaiveFaithfulness") -> None:
        check_cell("activation_fn", activation_fn)
        super().__init__(num_labels, activation_fn)
        self._metric = _named("metric", metric, FAITHFULNESS)
        self.metric_name = NAMES[metric]
        self.metric_parameters = {"protocol": PROTOCOL.protocol}

    def evaluate(self, explainer: CellExplainer, inputs: Tensor, targets: Tensor | int, saliency: Any = None) -> Any:
        """Measures maps of pictures.

        Args:
            explainer: What made them, or makes them.
            inputs: (N, C, H, W).
            targets: The class that is explained, or (N,).
            saliency: Its maps, (N, 1, H, W); None has them made.

        Returns:
            (N,) of the type that the inputs have, in [0, 1].

        Raises:
            TypeError: An argument is of a wrong type.
            ValueError: An argument has a wrong value.
        """
        return self._measured(explainer, inputs, targets, saliency)

    def _measure(self, objects: Any) -> Measure:
        return self._metric


class Localization(ClassMetric):
    """How well a map points at the objects of its class.

    PointingGame: whether the largest value lies on an object, or less than 15 pixels from one at a shorter side of 224,
    in proportion at others; MindSpore XAI's disc of tolerance is transposed, so that a maximum in the box may miss.
    IoSR: the part of the region above half of the largest value that lies on objects. Masks need not be square.

    Args:
        num_labels: Classes of the net.
        metric: "PointingGame" or "IoSR".
    """

    def __init__(self, num_labels: int, metric: str = "PointingGame") -> None:
        super().__init__(num_labels)
        self._metric = _named("metric", metric, LOCALIZATION)
        self.metric_name = NAMES[metric]
        self.metric_parameters = {}

    def evaluate(
        self, explainer: CellExplainer, inputs: Tensor, targets: Tensor | int, saliency: Any = None, mask: Any = None
    ) -> Any:
        """Measures maps of pictures.

        Args:
            explainer: What made them, or makes them.
            inputs: (N, C, H, W).
            targets: The class that is explained, or (N,).
            saliency: Its maps, (N, 1, H, W); None has them made.
            mask: Where the objects of the class are, (N, 1, H, W): above 0 is on one.

        Returns:
            (N,) of the type that the inputs have, in [0, 1].

        Raises:
            TypeError: An argument is of a wrong type.
            ValueError: An argument has a wrong value; there is no mask.
        """
        if mask is None:
            raise ValueError("mask must be given: where the objects of the class are, (N, 1, H, W)")
        return self._measured(explainer, inputs, targets, saliency, mask)

    def _measure(self, objects: Any) -> Measure:
        return self._metric


class Robustness(ClassMetric):
    """exp(-max ‖S' - S‖ / ‖S‖) over the maps S' of ten pictures with uniform noise in [-0.2, 0.2].

    The noise has a seed. MindSpore XAI applies the activation twice, and looks at the picture without noise where it
    means to draw again.

    Args:
        num_labels: Classes of the net.
        activation_fn: What turns its logits into probabilities.
    """

    def __init__(self, num_labels: int, activation_fn: nn.Cell) -> None:
        check_cell("activation_fn", activation_fn)
        super().__init__(num_labels, activation_fn)
        self.metric_name = _Robustness.name
        self.metric_parameters = {"radius": _NOISE}

    def evaluate(self, explainer: CellExplainer, inputs: Tensor, targets: Tensor | int, saliency: Any = None) -> Any:
        """Measures an explainer on pictures. Arguments, result and errors are as of `Faithfulness.evaluate`."""
        return self._measured(explainer, inputs, targets, saliency)

    def _measure(self, objects: Any) -> Measure:
        parameters = RobustnessParameters(radius=_NOISE)
        return lambda instance, context: _Robustness().measure(instance, parameters, context)


class ClassSensitivity(CellMetric):
    """(1 - r) / 2, with r the correlation of the maps of the most and the least probable class.

    MindSpore XAI's fails with RISE.
    """

    metric_name = _ClassSensitivity.name
    metric_parameters: Mapping[str, Any] = {}

    def evaluate(self, explainer: CellExplainer, inputs: Tensor) -> Any:
        """Measures an explainer on pictures (N, C, H, W); returns (N,) of their type, in [0, 1].

        Raises:
            TypeError: An argument is of a wrong type.
            ValueError: An argument has a wrong value.
        """
        check_type("explainer", explainer, CellExplainer)

        def measure(instance: Instance, context: Context) -> Steps[Score]:
            return _ClassSensitivity().measure(instance, ClassSensitivityParameters(), context)

        pictures = to_inputs(inputs)
        net = explainer.compiled(pictures.images.shape[1:])
        return self._evaluate(
            explainer, pictures, net, lambda number, image, call: (Instance(image, 0, None, call), measure)
        )

    def aggregate(self, result: Any) -> None:
        """Adds scores, a number or (N,)."""
        self._scores += [(None, score) for score in _numbers(result)]

    def get_results(self) -> list[float]:
        """The scores that were aggregated."""
        return [score for _, score in self._scores]


def _named(field: str, name: Any, known: dict[str, Measure]) -> Measure:
    if name not in known:
        raise ValueError(f"{field} must be one of {', '.join(known)}, not {name!r}")
    return known[name]


def _maps(saliency: Any, images: FloatArray) -> FloatArray:
    """Maps (N, 1, H, W) as (N, H, W)."""
    maps = to_array("saliency", saliency)
    expected = (len(images), 1, *images.shape[2:])
    if maps.shape != expected:
        raise ValueError(f"saliency must have the shape {expected}, not {maps.shape}")
    return np.asarray(maps[:, 0], np.float32)


def _masks(mask: Any, images: FloatArray) -> Any:
    masks = to_array("mask", mask)
    expected = (len(images), 1, *images.shape[2:])
    if masks.shape != expected:
        raise ValueError(f"mask must have the shape {expected}, not {masks.shape}")
    return masks[:, 0] > 0


def _numbers(result: Any) -> list[float]:
    if isinstance(result, (float, int, np.floating)):
        return [float(result)]
    check_type("result", result, float, ms.Tensor, np.ndarray)
    return [float(score) for score in to_array("result", result).reshape(-1)]


def _mean(scores: list[float]) -> float:
    finite = [score for score in scores if math.isfinite(score)]
    return sum(finite) / len(finite) if finite else math.nan
