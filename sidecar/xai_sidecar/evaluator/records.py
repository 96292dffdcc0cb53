"""What is known of sampled traffic. Plain values, from the call that was sampled to the store and back."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from xai_sidecar.engine.work import FloatArray
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.imaging import Region
from xai_sidecar.metrics.base import ScoreStatus


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
    """What became of a sample. All but PENDING are final, unless it turns out to be AMBIGUOUS."""

    PENDING = "pending"
    SCORED = "scored"
    DROPPED = "dropped"  # there was no room for its picture
    EXPIRED = "expired"  # it became too old before its turn came
    LOST = "lost"  # the server ended before its turn came, and its picture was not kept
    FAILED = "failed"  # nothing of it could be measured
    NO_POSITIVE = "no_positive"  # no class counts as predicted, so that there is none to explain
    AMBIGUOUS = "ambiguous"  # its key is that of another picture, too


@dataclass(frozen=True, eq=False)
class Frame:
    """Where a model input lies on its picture.

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
        seed: Of everything random in it.
        pass_count: Rows that went through the model for it.
    """

    saliency: FloatArray
    status: MapStatus
    seed: int
    pass_count: int


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture of sampled traffic, with what the model said of it.

    Attributes:
        key: Which one.
        time: When it was predicted, as Unix time in seconds.
        model_version: `EvaluatedModel.version` of the model that predicted.
        frame: Where the image lies on the picture.
        image: (C, H, W) float32, the model input.
        logits: (classes,) float32; what ranks classes, since probabilities saturate.
        probabilities: (classes,) float32.
        positives: The classes that count as predicted, rising; with none of them there is no map to measure.
        ood: Its OoD score and percentile, if they are known.
        served: Maps that the caller was given, by explainer.
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

    @property
    def target(self) -> int:
        """The most probable class, of equals the first: the one that is explained."""
        return int(self.logits.argmax())

    @property
    def byte_count(self) -> int:
        """What it takes in memory."""
        maps = sum(served.saliency.nbytes for served in self.served.values())
        return int(self.image.nbytes + self.logits.nbytes + self.probabilities.nbytes + maps)


@dataclass(frozen=True)
class BoxShape:
    """A box, in pixels of the upright picture, right and bottom exclusive."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class PolygonShape:
    """A polygon, in pixels of the upright picture; what is inside is by the even-odd rule.

    Attributes:
        points: (x, y) of its corners, at least three.
    """

    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class MaskShape:
    """A mask of the size of the upright picture.

    Attributes:
        png: The file; what is not 0 belongs to the object.
    """

    png: bytes


Shape: TypeAlias = BoxShape | PolygonShape | MaskShape


@dataclass(frozen=True)
class TruthObject:
    """Something that the picture really shows.

    Attributes:
        shape: Where it is.
        class_id: What it is; None where it belongs to every class that is reported.
    """

    shape: Shape
    class_id: int | None = None


@dataclass(frozen=True)
class GroundTruth:
    """What a picture really showed.

    Attributes:
        class_ids: The classes that apply, rising; empty if only objects were reported.
        objects: Where things are.
        time: When it was reported, as Unix time in seconds.
    """

    class_ids: tuple[int, ...]
    objects: tuple[TruthObject, ...]
    time: float


@dataclass(frozen=True)
class SampleRecord:
    """A sample as the store has it: all but its image and its maps.

    Attributes:
        key: Which one.
        time: When it was predicted, as Unix time in seconds.
        model_version: `EvaluatedModel.version` of the model that predicted.
        frame: Where the image lies on the picture.
        target: The most probable class.
        probability: Its probability.
        positives: The classes that were predicted, rising: the most probable one, or with sigmoid all from some
            probability on.
        ood: Its OoD score and percentile, if they are known.
        state: What became of it.
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


@dataclass(frozen=True, eq=False)
class MapRecord:
    """A map of a sample's most probable class.

    Attributes:
        explainer: Who made it.
        target: The class that it explains.
        parameters: The explainer's, as JSON has them.
        seed: Of everything random in it.
        status: Whether it can be believed.
        saliency: (H, W) float32.
        pass_count: Rows that went through the model for it.
    """

    explainer: str
    target: int
    parameters: Mapping[str, Any]
    seed: int
    status: MapStatus
    saliency: FloatArray
    pass_count: int


@dataclass(frozen=True)
class ScoreRecord:
    """What a benchmark said of a map.

    Attributes:
        explainer: Whose map.
        metric: The benchmark's name.
        target: The class that was explained.
        value: The score; None if it could not be measured.
        status: OK, or why it could not; None where measuring failed with an error.
        time: When it was measured, as Unix time in seconds.
        seconds: What measuring took, waiting included.
        pass_count: Rows that went through the model for it.
    """

    explainer: str
    metric: str
    target: int
    value: float | None
    status: ScoreStatus | None
    time: float
    seconds: float
    pass_count: int
