"""What callers ask for, in no protocol's terms: adapters make these, `Core` checks and answers them.

A collection may convert its items as they are looked at (`Converted`), since the core looks at none before it has
checked how many there are. Errors of such a conversion name their field within the item; the core adds the path to it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from numpy.typing import NDArray

from xai_sidecar.evaluator.records import BoxAnnotation, MaskAnnotation
from xai_sidecar.serving.plan import Condition, Targets

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class EncodedPicture:
    """The bytes of a picture's file: JPEG, PNG, WebP, GIF, BMP or TIFF."""

    data: bytes


@dataclass(frozen=True, eq=False)
class Pixels:
    """A decoded picture: (height, width, channels) uint8, with 1 or 3 channels."""

    array: NDArray[Any]


@dataclass(frozen=True, eq=False)
class ModelInput:
    """A picture as the model takes it: (channels, height, width) float32 or float16, resized and normalised."""

    array: NDArray[Any]


Picture: TypeAlias = EncodedPicture | Pixels | ModelInput


class MapEncoding(enum.Enum):
    """How the maps of an explanation are sent."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    PNG = "png"

    @property
    def value_bytes(self) -> int:
        """The most bytes that a value of a map takes."""
        return {MapEncoding.FLOAT32: 4, MapEncoding.FLOAT16: 2, MapEncoding.PNG: 1}[self]


@dataclass(frozen=True)
class ExplanationRequest:
    """One explanation to be made of every picture of a request.

    Attributes:
        explainer: Name of an explainer, or "auto".
        name: What the caller calls the explanation; empty for the explainer's name.
        parameters: Values of the explainer's parameters, by name; the server's defaults hold for all others.
        targets: Which classes to explain.
        budget_seconds: Longest time to spend on it; None for as long as it takes.
        seed: Of everything random in it; None to have one drawn.
        condition: When to make it at all; None for always.
        encoding: How its maps are sent.
    """

    explainer: str
    name: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    targets: Targets = field(default_factory=Targets)
    budget_seconds: float | None = None
    seed: int | None = None
    condition: Condition | None = None
    encoding: MapEncoding = MapEncoding.FLOAT32


@dataclass(frozen=True)
class PredictRequest:
    """Pictures to classify, and what to explain of the predictions.

    Attributes:
        images: The pictures.
        explanations: The explanations wanted of each picture.
        top_k: Classes to return of each picture; None for the default.
        ood: Whether OoD scores are wanted.
        request_id: The caller's name for the request; empty to have one made up.
        model: Name of the model to ask; empty for the one that is served.
        byte_count: Size of the request as it was received, in bytes; admission counts it.
        skip_sampling: Whether it is no traffic, but somebody who looks at what the model says.
    """

    images: Collection[Picture]
    explanations: Collection[ExplanationRequest] = ()
    top_k: int | None = None
    ood: bool = False
    request_id: str = ""
    model: str = ""
    byte_count: int = 0
    skip_sampling: bool = False


@dataclass(frozen=True)
class ReportedPolygon:
    """A polygon on the upright picture.

    Attributes:
        points: (x, y) of its corners, in pixels.
    """

    points: Collection[tuple[float, float]]


@dataclass(frozen=True)
class ReportedObject:
    """An object that the caller says a picture shows.

    Attributes:
        shape: Where it is; None where the caller did not say, which is an error.
        label: Label of its class; empty where the caller gave none.
        class_id: Its class; None where the caller gave none.
    """

    shape: BoxAnnotation | ReportedPolygon | MaskAnnotation | None
    label: str = ""
    class_id: int | None = None


@dataclass(frozen=True)
class GroundTruthReport:
    """What a picture of an earlier request really showed.

    Attributes:
        request_id: Id of that request.
        image_index: Index of the picture in it.
        labels: Labels of the classes that apply.
        class_ids: Classes that apply.
        boxes: Objects of every class that is reported.
        objects: Objects of a shape and class of their own.
        model: Name of the model that predicted; empty for the one that is served.
        byte_count: Size of the report as it was received, in bytes; admission counts it.
        keep_unmentioned: Whether classes or objects of which it has none stay as they were reported before.
    """

    request_id: str
    image_index: int = 0
    labels: Collection[str] = ()
    class_ids: Collection[int] = ()
    boxes: Collection[BoxAnnotation] = ()
    objects: Collection[ReportedObject] = ()
    model: str = ""
    byte_count: int = 0
    keep_unmentioned: bool = False


class Converted(Collection[T], Generic[S, T]):
    """Items that are converted whenever they are looked at; to know how many there are takes no conversion.

    Args:
        items: What is converted.
        convert: Makes an item of this collection of one of `items`.
    """

    def __init__(self, items: Collection[S], convert: Callable[[S], T]) -> None:
        self._items = items
        self._convert = convert

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return map(self._convert, self._items)

    def __contains__(self, item: object) -> bool:
        return any(item == each for each in self)
