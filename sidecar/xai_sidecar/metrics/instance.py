"""What metrics measure: a picture with its saliency map, its explainer, and the objects in it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.engine.work import FloatArray
from xai_sidecar.errors import TargetError, TensorError
from xai_sidecar.explainers.base import Explainer, MapStatus
from xai_sidecar.metrics.objects import ObjectArea, checked


@dataclass(frozen=True)
class ExplainerCall:
    """An explainer with its parameters, with which pictures are explained anew.

    Attributes:
        explainer: The explainer.
        parameters: Its parameters, resolved for the model.
        seed: Seed of everything random in it.
    """

    explainer: Explainer[Any]
    parameters: Any
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Instance:
    """One picture, explained for one class. `Metric.needs` says which of the optional fields a metric uses.

    Attributes:
        image: (C, H, W) float32, a model input.
        target: The class id that is explained, at least 0.
        saliency: (H, W), real numbers; higher is more important for the target. Anybody may have made it. None if there
            is no map.
        call: For metrics that explain again; None if the explainer is not known.
        objects: The target's objects, in the frame of the model input: boxes (left, top, right, bottom) in pixels, or
            masks (H, W) bool. Empty if none are known.
        logits: (classes,), the model's output for the image; given, it saves a pass.
        shared: Logits of perturbed copies of this image by this map, under keys of `perturbation`: metrics that are
            given the same one do not ask twice. None where nothing is shared.
        maps: Maps (H, W) of this image by `call` with their statuses, by class, which metrics that explain again need
            not make anew. Those of random explainers may be of fewer passes than `call` would spend.
        orders: Orders of the map's pixels by the seed of ties, which `perturbation.order_of` leaves here.

    Raises:
        TensorError: A shape or dtype that does not fit.
        TargetError: A target that no model has.
    """

    image: FloatArray
    target: int
    saliency: NDArray[Any] | None = None
    call: ExplainerCall | None = None
    objects: Sequence[ObjectArea] = ()
    logits: FloatArray | None = None
    shared: MutableMapping[Hashable, FloatArray] | None = None
    maps: Mapping[int, tuple[FloatArray, MapStatus]] = field(default_factory=dict)
    orders: MutableMapping[int, NDArray[np.int32]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.dtype != np.float32 or not self.image.size:
            raise TensorError(
                f"The image is {self.image.dtype} of shape {self.image.shape}. Make it float32 of shape (C, H, W).",
                field="image",
            )
        if self.target < 0:
            raise TargetError(f"There is no class {self.target}. Ids begin with 0.", field="target")
        if self.saliency is not None:
            self._check_saliency(self.saliency)
        if self.logits is not None:
            self._check_logits(self.logits)
        for number, area in enumerate(self.objects):
            checked(area, self.frame, f"objects[{number}]")

    @property
    def frame(self) -> tuple[int, int]:
        """Height and width of the model input."""
        return self.image.shape[1], self.image.shape[2]

    def _check_saliency(self, saliency: NDArray[Any]) -> None:
        if saliency.shape != self.frame or saliency.dtype.kind not in "fiub":
            raise TensorError(
                f"The map is {saliency.dtype} of shape {saliency.shape}. Make it real numbers of the image's height "
                f"and width, {self.frame}.",
                field="saliency",
            )

    def _check_logits(self, logits: FloatArray) -> None:
        if logits.ndim != 1:
            raise TensorError(f"The logits have shape {logits.shape}. Give one for each class.", field="logits")
        if self.target >= len(logits):
            raise no_such_class(self.target, len(logits))


def no_such_class(target: int, class_count: int) -> TargetError:
    """The error of a target that a model with some classes does not have."""
    return TargetError(f"There is no class {target}; the model has 0 to {class_count - 1}.", field="target")
