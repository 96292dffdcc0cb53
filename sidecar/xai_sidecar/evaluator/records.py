"""Records of the evaluator: samples, maps, scores and ground truth, as plain values between threads and the store."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from xai_sidecar.engine.work import FloatArray
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.imaging import Region
from xai_sidecar.metrics.base import MaskingCurve, ScoreStatus

PictureSource: TypeAlias = bytes | NDArray[Any]
"""A picture as it was sent: the bytes of its file, or pixels (H, W, C) uint8."""


class SampleKey(NamedTuple):
    """Which picture of which request."""

    request_id: str
    image_index: int

    @property
    def seed(self) -> int:
        """The seed of everything random in measuring it, 32 bits; the same in every run."""
        digest = hashlib.blake2b(f"{self.request_id}:{self.image_index}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big")


class SampleState(enum.Enum):
    """Where a sample is on its way to be measured. All but PENDING are final, unless it turns out to be AMBIGUOUS."""

    PENDING = "pending"
    SCORED = "scored"
    DROPPED = "dropped"  # there was no room for its picture
    EXPIRED = "expired"  # it became too old before it was measured
    LOST = "lost"  # the server ended before it was measured, and its picture was not kept
    FAILED = "failed"  # nothing of it could be measured
    NO_POSITIVE = "no_positive"  # no class counts as predicted, so that there is none to explain
    AMBIGUOUS = "ambiguous"  # its key is that of another picture, too


@dataclass(frozen=True, eq=False)
class Frame:
    """Size of a model input, and where it lies on its picture.

    Attributes:
        height: Rows of the model input.
        width: Columns of the model input.
        picture_size: Width and height of the upright picture; None where a model input was sent, then coordinates are
            those of the model input itself.
        region: The part of the picture that the model input covers; None where there is no picture.
    """

    height: int
    width: int
    picture_size: tuple[int, int] | None = None
    region: Region | None = None


@dataclass(frozen=True, eq=False)
class Served:
    """A map of the most probable class that a caller was given, made with the server's own parameters.

    Attributes:
        saliency: (H, W) float32.
        status: Whether it can be believed.
        seed: Seed of everything random in making it.
        pass_count: Rows that went through the model for it.
    """

    saliency: FloatArray
    status: MapStatus
    seed: int
    pass_count: int


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture of sampled traffic with its prediction, waiting to be measured.

    Attributes:
        key: Its request and its place in it.
        time: When it was predicted, as Unix time in seconds.
        model_version: `EvaluatedModel.version` of the model that predicted.
        frame: Where the model input lies on the picture.
        image: (C, H, W) float32, the model input.
        logits: (classes,) float32; they rank classes, since probabilities saturate.
        probabilities: (classes,) float32.
        positives: The classes that count as predicted, rising; with none of them there is no map to measure.
        ood: OoD score and percentile; None if not known.
        served: Maps that the caller was given, by explainer.
        inclusion: How likely its request was to be sampled.
        weight: What it counts for in means, above 0; see `sampling.Draw`.
        typical: Whether it would have been sampled whatever was predicted.
        chosen: The class that is explained, where that need not be the most probable one; None for that.
        source: The picture as it was sent, until its thumbnail is made; None where a model input was sent, or none is
            to be made.
    """

    key: SampleKey
    time: float
    model_version: str
    frame: Frame
    image: FloatArray
    logits: FloatArray
    probabilities: FloatArray
    positives: tuple[int, ...]
    ood: tuple[float, float] | None = None
    served: Mapping[str, Served] = field(default_factory=dict)
    inclusion: float = 1.0
    weight: float = 1.0
    typical: bool = True
    chosen: int | None = None
    source: PictureSource | None = None

    @property
    def target(self) -> int:
        """The class that is explained: the most probable one, of equals the first, unless another was chosen."""
        return int(self.logits.argmax()) if self.chosen is None else self.chosen

    def record(self) -> SampleRecord:
        """It as it is stored."""
        return SampleRecord(
            key=self.key,
            time=self.time,
            model_version=self.model_version,
            frame=self.frame,
            target=self.target,
            probability=float(self.probabilities[self.target]),
            positives=self.positives,
            ood=self.ood,
            inclusion=self.inclusion,
            weight=self.weight,
        )

    @property
    def byte_count(self) -> int:
        """Memory that its arrays take."""
        maps = sum(served.saliency.nbytes for served in self.served.values())
        source = self.source
        sent = 0 if source is None else len(source) if isinstance(source, bytes) else source.nbytes
        return int(self.image.nbytes + self.logits.nbytes + self.probabilities.nbytes + maps + sent)


@dataclass(frozen=True)
class BoxAnnotation:
    """A bounding box, in pixels of the upright picture, right and bottom exclusive."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class PolygonAnnotation:
    """A polygon in pixels of the upright picture, filled by the even-odd rule.

    Attributes:
        points: (x, y) of its corners, at least three.
    """

    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class MaskAnnotation:
    """A segmentation mask of the size of the upright picture.

    Attributes:
        png: The PNG file; pixels that are not 0 belong to the object.
    """

    png: bytes


Annotation: TypeAlias = BoxAnnotation | PolygonAnnotation | MaskAnnotation


@dataclass(frozen=True)
class TruthObject:
    """An annotated object in a ground truth.

    Attributes:
        annotation: Where it is on the picture.
        class_id: Its class; None where it belongs to every class that is reported.
    """

    annotation: Annotation
    class_id: int | None = None


@dataclass(frozen=True)
class GroundTruth:
    """The reported ground truth of a sample.

    Attributes:
        class_ids: The true classes, rising; empty if only objects were reported.
        objects: The annotated objects.
        time: When it was reported, as Unix time in seconds.
    """

    class_ids: tuple[int, ...]
    objects: tuple[TruthObject, ...]
    time: float


@dataclass(frozen=True)
class SampleRecord:
    """A sample in the store, without its model input, its maps and its scores.

    Attributes:
        key: Its request and its place in it.
        time: When it was predicted, as Unix time in seconds.
        model_version: `EvaluatedModel.version` of the model that predicted.
        frame: Where the model input lies on the picture.
        target: The class that is explained: the most probable one, unless another was chosen.
        probability: Its probability.
        positives: The classes that were predicted, rising: the most probable one, or with sigmoid all from some
            probability on.
        ood: OoD score and percentile; None if not known.
        state: Where it is on its way to be measured.
        inclusion: How likely its request was to be sampled; None where that is not known.
        weight: What it counts for in means, above 0.
    """

    key: SampleKey
    time: float
    model_version: str
    frame: Frame
    target: int
    probability: float
    positives: tuple[int, ...]
    ood: tuple[float, float] | None = None
    state: SampleState = SampleState.PENDING
    inclusion: float | None = None
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class MapRecord:
    """A saliency map of a sample's most probable class.

    Attributes:
        explainer: Name of the explainer.
        target: The class that it explains.
        parameters: Parameters of the explainer, as JSON values.
        seed: Seed of everything random in making it.
        status: Whether it can be believed.
        saliency: (H, W) float32.
        pass_count: Rows that went through the model for it.
        definition: As of `definitions.map_definition`; empty where it is not known.
    """

    explainer: str
    target: int
    parameters: Mapping[str, Any]
    seed: int
    status: MapStatus
    saliency: FloatArray
    pass_count: int
    definition: str = ""


@dataclass(frozen=True)
class ScoreRecord:
    """A score of a map by a metric.

    Attributes:
        explainer: Name of the explainer that made the map.
        metric: Name of the metric.
        target: The class that was explained.
        value: The score; None if it could not be measured.
        status: OK, or why it could not; None where measuring failed with an error.
        time: When it was measured, as Unix time in seconds.
        seconds: Time that measuring took, waiting included.
        pass_count: Rows that went through the model for it.
        definition: As of `definitions.score_definition`, or of the map where that is what is scored; empty where it is
            not known.
        curves: What it was made of, to be stored with it; none where that is not to be, or it comes from the store.
    """

    explainer: str
    metric: str
    target: int
    value: float | None
    status: ScoreStatus | None
    time: float
    seconds: float
    pass_count: int
    definition: str = ""
    curves: tuple[MaskingCurve, ...] = field(default=(), compare=False, repr=False)
