"""The base of all explainers: typed parameters, and a computation of maps from an image and targets."""

from __future__ import annotations

import enum
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from xai_sidecar.engine.backend import Layer
from xai_sidecar.engine.work import FloatArray, IntArray, Kind, Steps, mapped
from xai_sidecar.explainers.activations import Activation, softmax
from xai_sidecar.extensions import Extension
from xai_sidecar.picture_units import PICTURES, PictureUnits

Normalization = Literal["none", "max"]


class ExplainerParameters(BaseModel):
    """Parameters of an explainer. Descriptions, ranges and defaults of the fields are what `GetModelInfo` lists."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    follows: ClassVar[Mapping[str, str]] = {}
    """Parameters whose configured value does not hold where a request sets the other one named."""

    normalization: Normalization = Field(
        default="none",
        description="How the values are scaled: none, or max for dividing by the largest absolute value.",
    )


class LayerParameters(ExplainerParameters):
    """Parameters of an explainer of a layer. The config says which layers are compiled at start for it."""

    layer: str = Field(
        default="",
        description="Name of the layer whose output is explained, as the net names it.",
        max_length=512,
    )


P = TypeVar("P", bound=ExplainerParameters)


FLOAT32 = "float32"
"""The precision of passes unless another one is named."""

MOST_STANDARD_ERROR = 0.7
"""Relative standard error above which a map is unreliable: half of the variance of an average is then noise, and its
correlation with the map of infinitely many passes √(1 - 0.7²), which is 0.7, too, or less."""


class MapStatus(enum.Enum):
    """Whether a map can be believed. Only OK, ALL_ZERO and UNRELIABLE maps may be shown, the last with a warning."""

    OK = "ok"
    ALL_ZERO = "all zero"
    UNRELIABLE = "unreliable"
    ZERO_GRADIENT = "zero gradient"
    NOT_FINITE = "not finite"
    NO_OOD_RANGE = "no OoD range"

    @property
    def shown(self) -> bool:
        """Whether the map may be shown at all."""
        return self in (MapStatus.OK, MapStatus.ALL_ZERO, MapStatus.UNRELIABLE)

    @property
    def believed(self) -> bool:
        """Whether the map is the explainer's result, and not noise or missing."""
        return self in (MapStatus.OK, MapStatus.ALL_ZERO)


@dataclass(frozen=True)
class Rounding:
    """What passes in a precision below float32 do to maps.

    Attributes:
        precision: "bfloat16" or "float16".
        errors: (targets,) float32, the relative error of each map, as a standard error is told.
    """

    precision: str
    errors: FloatArray


@dataclass(frozen=True)
class Saliency:
    """Maps of one image.

    Attributes:
        maps: (targets, H, W) float32 in the frame of the model input; higher is more important for the target.
        statuses: Whether each can be believed.
        standard_errors: (targets,) float32, the relative standard error of each map: the root mean square of its
            pixels' standard errors over its standard deviation. None for exact methods.
        rounding: What passes in a precision below float32 have done to the maps, as part of these; None if all were in
            float32.
    """

    maps: FloatArray
    statuses: tuple[MapStatus, ...]
    standard_errors: FloatArray | None = None
    rounding: Rounding | None = None


@dataclass(frozen=True)
class ModelFacts:
    """The facts about the model that explainers may use.

    Attributes:
        height: Rows of its input.
        width: Columns of its input.
        layers: Its layers with a spatial output, by name, in the order in which they run.
        default_layer: The layer that explains best by default; None when there is no spatial layer.
        has_ood: Whether it can be asked for OoD scores.
        units: Conversion between its input's values and those of a picture.
        refused_layers: The reasons why other layers cannot be explained, by name.
        reduced: For kinds of work that it also does in a precision below float32, which saves time, that kind.
        no_gradients: Why neither gradients nor outputs of layers can be had of it; empty where they can.
    """

    height: int
    width: int
    layers: Mapping[str, Layer] = field(default_factory=dict)
    default_layer: str | None = None
    has_ood: bool = False
    units: PictureUnits = PICTURES
    refused_layers: Mapping[str, str] = field(default_factory=dict)
    reduced: Mapping[Kind, Kind] = field(default_factory=dict)
    no_gradients: str = ""


@dataclass(frozen=True)
class Context:
    """The settings of one explanation besides its parameters.

    Attributes:
        activation: Maps the model's logits to probabilities.
        seed: Seed of everything random in it.
        units: As in `ModelFacts`; their `fill` is the value that covers pixels.
        reduced: The kind of work in a precision below float32 that it may ask for; None for none. See
            `Explainer.reduced`.
    """

    activation: Activation = softmax
    seed: int = 0
    units: PictureUnits = PICTURES
    reduced: Kind | None = None


@dataclass(frozen=True)
class Computed:
    """Maps as an explainer defines them, before they are normalised and their statuses are set.

    Attributes:
        maps: (targets, H, W).
        flaws: For each target the status of a map that must not be believed; None for one that is judged by its values
            and its standard error.
        standard_errors: As in `Saliency`.
        rounding: As in `Saliency`.
    """

    maps: FloatArray
    flaws: Sequence[MapStatus | None]
    standard_errors: FloatArray | None = None
    rounding: Rounding | None = None


@dataclass(frozen=True)
class PassCounts:
    """How many rows go through the model for an explanation.

    Attributes:
        first: Rows until the first map, which is returned if the budget ends then.
        least: The fewest rows of a complete explanation.
        most: The most rows of a complete explanation.
    """

    first: int
    least: int
    most: int


class Explainer(Extension, Generic[P]):
    """An explainer. It holds no state: the same arguments give the same maps.

    A class in a module of this package is offered, and so is one that another package names in an entry point of the
    group `xai_sidecar.explainers`. Its config section, the check of requests, `GetModelInfo` and the documentation are
    made from it.

    Attributes:
        name: As of `Extension`: letters, digits and underscores. It is a section of the config.
        parameters_type: Its parameters: whole numbers, numbers, texts, or true or false.
        is_random: Whether the seed matters.
    """

    parameters_type: type[P]
    is_random: ClassVar[bool] = False

    @property
    def takes_layer(self) -> bool:
        """Whether it explains a layer, which a parameter names."""
        return issubclass(self.parameters_type, LayerParameters)

    def explain(
        self, image: FloatArray, targets: IntArray, parameters: P, context: Context | None = None
    ) -> Steps[Saliency]:
        """Computes the maps of one image.

        Args:
            image: (C, H, W) float32, a model input.
            targets: (t,) int32 class ids, at least one.
            parameters: The explainer's parameters, resolved.
            context: The other settings; by default a softmax model, seed 0 and pictures as model inputs.

        Returns:
            The maps, normalised as the parameters say, each with its status; the `Partial` ones that it yields, too.

        Raises:
            ValueError: The explainer computed maps of another shape than (targets, H, W).
        """

        def finish(computed: Computed) -> Saliency:
            expected = (len(targets), *image.shape[1:])
            if computed.maps.shape != expected:
                raise ValueError(f"{self.name} made maps of shape {computed.maps.shape} where they have {expected}")
            return _finished(computed, parameters.normalization)

        return mapped(self._compute(image, targets, parameters, context or Context()), finish)

    @abstractmethod
    def _compute(self, image: FloatArray, targets: IntArray, parameters: P, context: Context) -> Steps[Computed]:
        """The maps as the explainer defines them; see `explain`. It may yield `Partial` maps."""

    def resolve(self, parameters: P, model: ModelFacts) -> P:
        """The parameters with those set that depend on the model.

        Raises:
            UnknownLayerError: A layer that the model does not have, or not with a spatial output.
            ParameterError: A value that does not fit the model's input.
            PreconditionError: This model cannot be explained this way.
        """
        return parameters

    def largest(self, model: ModelFacts) -> dict[str, float]:
        """The largest values of parameters, by name, where the model allows less than their own ranges."""
        return {}

    @abstractmethod
    def kind(self, parameters: P) -> Kind:
        """The kind of work that it yields with resolved parameters; the backend compiles it."""

    def reduced(self, parameters: P, model: ModelFacts) -> Kind | None:
        """The kind of work in a precision below float32 that it may ask for, too; None for none.

        Only who tells standard errors may: what the precision does to the maps has to be part of them.
        """
        return None

    def pass_counts(self, target_count: int, parameters: P, model: ModelFacts) -> PassCounts:
        """The rows that go through the model with resolved parameters; by default one for each target."""
        return PassCounts(target_count, target_count, target_count)


def normalized(saliency: FloatArray) -> FloatArray:
    """A map (H, W) divided by its largest absolute value; unchanged where that is zero or not finite."""
    largest = float(np.abs(saliency).max())
    return saliency / np.float32(largest) if 0 < largest < np.inf else saliency


def without_gradient(gradients: FloatArray) -> list[MapStatus | None]:
    """The flaws of targets whose gradients (t, …) are all zero."""
    alive = gradients.any(axis=tuple(range(1, gradients.ndim)))
    return [None if some else MapStatus.ZERO_GRADIENT for some in alive]


def _finished(computed: Computed, normalization: Normalization) -> Saliency:
    maps, errors = computed.maps, computed.standard_errors
    known = np.zeros(len(maps)) if errors is None else errors
    statuses = tuple(_status(*each) for each in zip(maps, computed.flaws, known.tolist(), strict=True))
    if normalization == "max":
        maps = np.stack([normalized(saliency) for saliency in maps])
    return Saliency(np.ascontiguousarray(maps, np.float32), statuses, errors, computed.rounding)


def _status(saliency: FloatArray, flaw: MapStatus | None, standard_error: float) -> MapStatus:
    low, high = float(saliency.min()), float(saliency.max())  # NaN where any value is
    if not (math.isfinite(low) and math.isfinite(high)):
        return MapStatus.NOT_FINITE
    if flaw is not None:
        return flaw
    if low == high == 0:
        return MapStatus.ALL_ZERO
    if low == high or standard_error <= MOST_STANDARD_ERROR:  # what is flat shows no noise
        return MapStatus.OK
    return MapStatus.UNRELIABLE  # where the error is NaN, too


def repeated(image: FloatArray, count: int) -> FloatArray:
    """An image (C, H, W) as a batch (count, C, H, W) without copying it."""
    return np.broadcast_to(image, (count, *image.shape))


def renamed(explainer: Explainer[P], name: str) -> Explainer[P]:
    """An explainer by another name, under which several of a kind can stand side by side."""
    kind = type(explainer)
    made: Explainer[P] = type(kind.__name__, (kind,), {"name": name})()
    return made
