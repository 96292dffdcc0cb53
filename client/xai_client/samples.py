"""Samples of live traffic, with what was predicted, explained, measured and reported of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xai_client.colours import FloatArray
from xai_client.errors import ArgumentError
from xai_client.model_info import InputInfo
from xai_client.types import ClassScore, Explanation, ParameterValue, PictureSize, Region, SaliencyMap

Moment: TypeAlias = datetime | float
"""A point in time: a datetime (without a time zone, local time), or Unix time in seconds."""


@dataclass(frozen=True)
class ScoreRange:
    """A range of scores of one explainer by one metric.

    Attributes:
        explainer: Name of the explainer or control.
        metric: Name of the metric.
        minimum: The score is at least this; None for no bound. Without any bound, there has to be a score.
        maximum: The score is at most this; None for no bound.
    """

    explainer: str
    metric: str
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class SampleFilter:
    """Which samples are meant: those for which everything that is set holds.

    Attributes:
        predicted: Class ids, one of which was predicted.
        true: Class ids, one of which applies by its ground truth.
        outcomes: One of "unknown" (it is not known which classes apply), "true_positive", "false_positive" and
            "false_negative" that a class of the sample has; where class ids are given above, one of those classes.
        min_probability: Least probability of the most probable class.
        max_probability: Greatest.
        min_ood_percentile: Least OoD percentile, 0 to 100.
        max_ood_percentile: Greatest.
        map_statuses: Statuses, as of `SaliencyMap.status`, one of which a map has.
        map_explainer: Whose map; alone, there has to be one, whatever its status. Default: any explainer's.
        score: A range of a score.
        start: Predicted at this time or later.
        end: Predicted before this time.
        states: As of `SampleSummary.state`, one of which it is in.
        request_id: The request that it was in.
        any_model_version: Whether samples of earlier versions of the model count, too.
    """

    predicted: Sequence[int] = ()
    true: Sequence[int] = ()
    outcomes: Sequence[str] = ()
    min_probability: float | None = None
    max_probability: float | None = None
    min_ood_percentile: float | None = None
    max_ood_percentile: float | None = None
    map_statuses: Sequence[str] = ()
    map_explainer: str = ""
    score: ScoreRange | None = None
    start: Moment | None = None
    end: Moment | None = None
    states: Sequence[str] = ()
    request_id: str = ""
    any_model_version: bool = False


@dataclass(frozen=True)
class ClassOutcome:
    """How right a prediction was about a class.

    Attributes:
        class_id: Class id.
        label: Its label.
        outcome: "unknown": it is not known which classes apply; "true_positive": it was predicted, and applies;
            "false_positive": it was predicted, and does not; or "false_negative": it applies, and was not predicted.
    """

    class_id: int
    label: str
    outcome: str


@dataclass(frozen=True, eq=False)
class TruthObject:
    """Something that a picture really shows: one of `box`, `polygon` and `mask_png`, in pixels of the upright picture.

    Attributes:
        class_id: Its class; None where it is of every class that was reported.
        box: A rectangle; None for another shape.
        polygon: Corners (x, y); empty for another shape.
        mask_png: A PNG file as large as the picture, in which the object is not 0; empty for another shape.
    """

    class_id: int | None
    box: Region | None = None
    polygon: tuple[tuple[float, float], ...] = ()
    mask_png: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, eq=False)
class SampleTruth:
    """What a picture really showed.

    Attributes:
        time: When it was reported, UTC.
        class_ids: The classes that apply, rising; none where only objects were reported.
        labels: Their labels.
        object_count: Number of objects.
        objects: The objects; empty in lists, where only their number is known.
        applied: Whether the scores are by this truth already.
    """

    time: datetime
    class_ids: tuple[int, ...]
    labels: tuple[str, ...]
    object_count: int = 0
    objects: tuple[TruthObject, ...] = ()
    applied: bool = False


@dataclass(frozen=True)
class SampleMap:
    """What has become of an explainer's map of a sample.

    Attributes:
        explainer: Name of the explainer.
        status: As of `SaliencyMap.status`.
        kept: Whether its values are still kept. Those of a withheld or unreliable one never were.
    """

    explainer: str
    status: str
    kept: bool


@dataclass(frozen=True, eq=False)
class SampleSummary:
    """What a list shows of a sample.

    Attributes:
        request_id: Id of the request. With `image_index` it names the sample, also in `report_ground_truth`.
        image_index: Index of the picture in it.
        time: When it was predicted, UTC.
        state: "pending": it waits, or is being measured; "scored": it was measured; or why it was not: "dropped",
            "expired", "lost", "failed", "no_positive", "ambiguous".
        model_version: Version of the model that predicted, with its OoD net.
        classes: The most probable classes, most probable first, at most 10. The first one is explained.
        predicted: The classes that count as predicted, rising.
        truth: What it really showed; None until reported.
        outcomes: How right the prediction was about each class that was predicted or applies.
        ood_score: Raw OoD score; None where there is none.
        ood_percentile: Share of held-out training pictures with a lower score, 0 to 100; None where there is none.
        picture_size: Size of the upright picture; None where a model input was sent.
        region: The part of the picture that the model saw, hence that maps cover; None where a model input was sent.
        frame: Width and height of the model input, and of its maps.
        has_thumbnail: Whether there is a thumbnail.
        thumbnail_jpeg: The whole upright picture as a JPEG, its longer side at most 256 pixels; empty if not asked for.
        map: A small map (H, W) float32 of the explainer asked for, each side at most 32; None if there is none.
        explainers: What has been made of it, by explainer; controls are left out.
        score: The score that the list is ordered by or, without such an order, filtered by; None otherwise.
    """

    request_id: str
    image_index: int
    time: datetime
    state: str
    model_version: str
    classes: tuple[ClassScore, ...]
    predicted: tuple[int, ...]
    truth: SampleTruth | None
    outcomes: tuple[ClassOutcome, ...]
    ood_score: float | None
    ood_percentile: float | None
    picture_size: PictureSize | None
    region: Region | None
    frame: PictureSize
    has_thumbnail: bool
    thumbnail_jpeg: bytes = field(default=b"", repr=False)
    map: FloatArray | None = field(default=None, repr=False)
    explainers: Mapping[str, SampleMap] = field(default_factory=dict)
    score: float | None = None

    @property
    def id(self) -> str:
        """Name of the sample, such as "4f0c…/0"."""
        return f"{self.request_id}/{self.image_index}"

    @property
    def outcome_kinds(self) -> frozenset[str]:
        """The outcomes that any of its classes has."""
        return frozenset(each.outcome for each in self.outcomes)


@dataclass(frozen=True)
class SamplePage:
    """A page of samples.

    Attributes:
        samples: In order.
        next_page_token: Names the next page; empty after the last one.
        total_count: Number of samples that the filter lets through, of all pages; None if not asked for.
    """

    samples: tuple[SampleSummary, ...]
    next_page_token: str
    total_count: int | None = None


@dataclass(frozen=True)
class SampleScore:
    """A score of a map.

    Attributes:
        metric: Name of the metric.
        value: The score; None where there is none.
        status: "ok", or why there is no score, such as "no_objects" or "map_constant", or "error".
        higher_is_better: Whether a higher score is a better one.
        goodness: The score mapped to 0 to 1 with 1 for the best; None where there is none.
        time: When it was measured, UTC.
        passes: Passes that it took.
        parameters: What it was measured with, protocol included; empty where that has changed since.
        is_current: Whether it is defined as scores are now.
    """

    metric: str
    value: float | None
    status: str
    higher_is_better: bool
    goodness: float | None
    time: datetime
    passes: int
    parameters: Mapping[str, ParameterValue]
    is_current: bool


@dataclass(frozen=True, eq=False)
class MaskingCurve:
    """The probability of the class explained while pixels are covered or uncovered, the most salient first.

    Attributes:
        kind: "deletion": pixels are covered, beginning with the whole picture; or "insertion": they are uncovered,
            beginning with nothing of it.
        fill: What covers pixels: "mean_colour", "black", "blurred" or "rise_blur".
        pixel_counts: How many pixels have been covered or uncovered before the first step, which is 0, and after each.
        probabilities: The probability at each, right to 0.0005.
        tie_seed: Seed of the order of equally salient pixels; see `order`.
        area: Area under the curve: its mean height.
    """

    kind: str
    fill: str
    pixel_counts: tuple[int, ...]
    probabilities: tuple[float, ...]
    tie_seed: int
    area: float

    def order(self, saliency: FloatArray) -> NDArray[np.int64]:
        """The pixels of the map as indices into the flat map, (H W,), in the order in which they are changed."""
        drawn = np.random.Generator(np.random.Philox(key=self.tie_seed)).permutation(saliency.size)
        return np.asarray(drawn[np.argsort(-saliency.ravel()[drawn], kind="stable")])

    def shown(self, saliency: FloatArray, step: int) -> NDArray[np.bool_]:
        """Which pixels (H, W) still show the picture at a step; the others show the fill.

        Args:
            saliency: The map (H, W) that the curve is of.
            step: Index into `pixel_counts`.

        Raises:
            ArgumentError: There is no such step.
        """
        if not 0 <= step < len(self.pixel_counts):
            raise ArgumentError(f"step must be 0 to {len(self.pixel_counts) - 1}, not {step!r}", field="step")
        changed = np.zeros(saliency.size, np.bool_)
        changed[self.order(saliency)[: self.pixel_counts[step]]] = True
        return (changed if self.kind == "insertion" else ~changed).reshape(saliency.shape)


@dataclass(frozen=True)
class MapShape:
    """How a map lies on its picture, by what it has above its own mean: no matter of scale or offset.

    Attributes:
        concentration: Gini index, 0 (the same all over) to 1 (all in one place).
        centre_x: Centre of mass, 0 (left edge) to 1.
        centre_y: Centre of mass, 0 (top edge) to 1.
        border: Share of the mass near an edge, 0 to 1.
    """

    concentration: float
    centre_x: float
    centre_y: float
    border: float


@dataclass(frozen=True, eq=False)
class SampleExplanation:
    """What one explainer, or control, made of a sample.

    Attributes:
        explainer: Its name.
        is_control: Whether it is a control: a map made without the model.
        maps: The maps, of one class each. `SaliencyMap.values` is None where it was withheld, is unreliable, or is no
            longer kept; `values_kept` tells.
        values_kept: Whether the maps' values are kept.
        parameters: What it was made with; empty where values are not kept.
        seed: The seed that it was made with; None where values are not kept.
        passes: Passes that it took.
        scores: Scores of the first map, by metric.
        curves: Deletion and insertion, by `MaskingCurve.kind`, of the first map; there may be none.
        shape: Statistics of the first map; None of one that is the same all over.
    """

    explainer: str
    is_control: bool
    maps: tuple[SaliencyMap, ...]
    values_kept: bool
    parameters: Mapping[str, ParameterValue]
    seed: int | None
    passes: int
    scores: Mapping[str, SampleScore]
    curves: Mapping[str, MaskingCurve]
    shape: MapShape | None = None

    @property
    def withheld(self) -> str:
        """Why there is no map to show, as of `SaliencyMap.withheld`; empty if there is one."""
        return self.maps[0].withheld if self.maps else "unknown"

    def in_frame(self) -> Explanation:
        """The same as an `Explanation` in the frame of the model input: its overlays take `Sample.picture`."""
        return Explanation(
            name=self.explainer,
            explainer=self.explainer,
            status="complete",
            status_message="",
            maps=self.maps,
            parameters=self.parameters,
            seed=self.seed,
            passes=self.passes,
            truncated=False,
            elapsed=0.0,
            region=None,
            picture_size=None,
        )


@dataclass(frozen=True, eq=False)
class Sample:
    """Everything that is kept of a sample.

    Attributes:
        summary: What a list shows of it, with objects and thumbnail.
        input_png: What the model saw, as a PNG as large as its input; empty where it is not kept.
        explanations: What was made of it, by explainer, then by control.
        server_version: Version of xai-sidecar that answered.
    """

    summary: SampleSummary
    input_png: bytes = field(repr=False)
    explanations: Mapping[str, SampleExplanation]
    server_version: str

    @property
    def picture(self) -> Image.Image | None:
        """What the model saw, RGB or grey, as large as the model input; None where it is not kept."""
        if not self.input_png:
            return None
        picture = Image.open(io.BytesIO(self.input_png), formats=["PNG"])
        picture.load()
        return picture

    def model_input(self, info: InputInfo) -> FloatArray | None:
        """What the model saw as it takes it, float32 (C, H, W), for `Client.predict`; None where it is not kept.

        Args:
            info: `ModelInfo.input`.
        """
        picture = self.picture
        if picture is None:
            return None
        pixels = np.atleast_3d(np.asarray(picture, np.float32)) / np.float32(255)
        mean, std = np.asarray(info.mean, np.float32), np.asarray(info.std, np.float32)
        return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1), np.float32)


@dataclass(frozen=True, eq=False)
class SampleEvent:
    """Something that happened to a sample.

    Attributes:
        kinds: What: "new": it was sampled; "measured": its measuring has ended; "labelled": ground truth was reported;
            "truth_applied": its scores by that ground truth are there.
        sample: The sample as it is now.
    """

    kinds: frozenset[str]
    sample: SampleSummary


@dataclass(frozen=True, eq=False)
class SampleEvents:
    """What has happened since the last one.

    Attributes:
        events: What happened; none in the first one, which tells that nothing is missed from now on.
        missed_count: Samples left out before these, since more happened than was read.
        reconnected: Whether the watching was begun anew, so that any number may have been missed before.
    """

    events: tuple[SampleEvent, ...]
    missed_count: int = 0
    reconnected: bool = False

    @property
    def lagged(self) -> bool:
        """Whether something was missed, so that it is time to list anew."""
        return self.reconnected or self.missed_count > 0
