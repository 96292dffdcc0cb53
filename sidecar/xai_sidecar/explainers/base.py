"""What every explainer is: typed parameters, and a computation that turns an image and targets into maps."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from xai_sidecar.engine.backend import Layer
from xai_sidecar.engine.work import FloatArray, IntArray, Kind, Steps

Normalization = Literal["none", "max"]


class Parameters(BaseModel):
    """Parameters of an explainer. Descriptions, ranges and defaults of the fields are what `GetModelInfo` lists."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    normalization: Normalization = Field(
        default="none",
        description="How the values are scaled: none, or max for dividing by the largest absolute value.",
    )


P = TypeVar("P", bound=Parameters)


class MapStatus(enum.Enum):
    """Whether a map can be believed. Only the maps of the first two may be shown."""

    OK = "ok"
    ALL_ZERO = "all zero"
    ZERO_GRADIENT = "zero gradient"
    NOT_FINITE = "not finite"


@dataclass(frozen=True)
class Saliency:
    """Maps of one image.

    Attributes:
        maps: (targets, H, W) float32 in the frame of the model input; higher is more important for the target.
        statuses: Whether each can be believed.
        standard_errors: (targets,) float32, the relative standard error of each map; None for exact methods.
    """

    maps: FloatArray
    statuses: tuple[MapStatus, ...]
    standard_errors: FloatArray | None = None


@dataclass(frozen=True)
class ModelFacts:
    """What explainers may know of the model before they run.

    Attributes:
        layers: Its layers with a spatial output, by name, in the order in which they run.
        default_layer: The layer that explains best by default; None when there is no spatial layer.
    """

    layers: Mapping[str, Layer]
    default_layer: str | None


class Explainer(ABC, Generic[P]):
    """An explainer. It holds no state: the same arguments give the same maps.

    Attributes:
        name: To ask for it by.
        description: What it does, in a sentence, with its source.
        parameters_type: Its parameters.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    parameters_type: type[P]

    def explain(self, image: FloatArray, targets: IntArray, parameters: P) -> Steps[Saliency]:
        """Computes the maps of one image.

        Args:
            image: (C, H, W) float32, a model input.
            targets: (t,) int32 class ids, at least one.
            parameters: The explainer's own.

        Returns:
            The maps, normalised as the parameters say, each with its status.
        """
        maps, has_gradient = yield from self._maps(image, targets, parameters)
        statuses = tuple(_status(saliency, some) for saliency, some in zip(maps, has_gradient, strict=True))
        if parameters.normalization == "max":
            maps = np.stack([normalized(saliency) for saliency in maps])
        return Saliency(np.ascontiguousarray(maps, np.float32), statuses)

    @abstractmethod
    def _maps(self, image: FloatArray, targets: IntArray, parameters: P) -> Steps[tuple[FloatArray, NDArray[np.bool_]]]:
        """The maps (t, H, W) as the method defines them, and for each target whether it had a gradient at all."""

    def resolve(self, parameters: P, model: ModelFacts) -> P:
        """The parameters with everything filled in that depends on the model.

        Raises:
            UnknownLayerError: A layer that the model does not have, or not with a spatial output.
            PreconditionError: This model cannot be explained this way.
        """
        return parameters

    @abstractmethod
    def kind(self, parameters: P) -> Kind:
        """The kind of work that resolved parameters will ask for; it has to be compiled."""

    def pass_count(self, target_count: int, parameters: P) -> int:
        """Rows that will go through the model: here one for each target."""
        return target_count


def normalized(saliency: FloatArray) -> FloatArray:
    """A map (H, W) divided by its largest absolute value; unchanged where that is zero or not finite."""
    largest = float(np.abs(saliency).max())
    return saliency / np.float32(largest) if 0 < largest < np.inf else saliency


def _status(saliency: FloatArray, has_gradient: np.bool_) -> MapStatus:
    if not np.isfinite(saliency).all():
        return MapStatus.NOT_FINITE
    if not has_gradient:
        return MapStatus.ZERO_GRADIENT
    return MapStatus.OK if saliency.any() else MapStatus.ALL_ZERO


def repeated(image: FloatArray, count: int) -> FloatArray:
    """An image (C, H, W) as a batch (count, C, H, W) without copying it."""
    return np.broadcast_to(image, (count, *image.shape))
