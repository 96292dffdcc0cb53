"""How good explanations have been measured to be, and what measures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from xai_client.response import advantage, enum_name, time_of
from xai_client.types import Advantage
from xai_proto import explanation_pb2 as pb


@dataclass(frozen=True)
class QualityMeasure:
    """What one metric has measured of one explainer.

    Attributes:
        metric: Name of the metric, after that of its family, such as "faithfulness/deletion_auc".
        mean: Mean score over the samples.
        confidence_half_width: Half the width of the 95 % confidence interval of the mean; NaN with a single sample.
        sample_count: Number of samples.
        higher_is_better: Whether a higher score is a better one.
        update_time: When the last sample was measured, UTC; None if not known.
        goodness: The mean, mapped from the metric's range to 0 to 1 with 1 for the best.
        interval: The mean's 95 % confidence interval, within the metric's range; None where the samples are too few to
            tell.
        skill: How it compares with the best control; None where it was not compared, and of controls.
    """

    metric: str
    mean: float
    confidence_half_width: float
    sample_count: int
    higher_is_better: bool
    update_time: datetime | None
    goodness: float
    interval: tuple[float, float] | None = None
    skill: Skill | None = None


@dataclass(frozen=True)
class Skill:
    """How far a score is from that of the best control to the best that there is.

    Attributes:
        control: Name of the control.
        value: 1 is the best that there is, 0 no better than the control.
        confidence_half_width: Half the width of its 95 % confidence interval; NaN where there are too few pictures.
    """

    control: str
    value: float
    confidence_half_width: float


@dataclass(frozen=True)
class ControlInfo:
    """A control: a map that is made without the model, such as noise. No request can ask for it.

    Attributes:
        name: Its name, such as "control/random".
        description: What it is, in a sentence.
        quality: How it has been measured; empty until measured.
        composite_score: As of `ExplainerInfo`; None until known.
    """

    name: str
    description: str
    quality: tuple[QualityMeasure, ...]
    composite_score: float | None = None


@dataclass(frozen=True)
class Standing:
    """Whether "auto" may choose an explainer.

    Attributes:
        eligible: Whether it beats all controls beyond chance, and no metric vetoes it.
        objection: Why not, as what follows its name in a sentence; empty if it is eligible.
        advantage: By how much it beats the control that it beats by the least, which may be negative.
    """

    eligible: bool
    objection: str
    advantage: Advantage


@dataclass(frozen=True)
class WeightDependence:
    """How an explainer's maps change when the model's weights are put in disorder, as far as that was tried.

    Attributes:
        entropy_rise: Relative rise of the entropy of the map's histogram, mean over pictures; near 0 where the weights
            hardly matter. It may be negative.
        correlation: Of the maps before and after, mean over pictures; 0 where they have nothing in common.
        picture_count: Pictures that were explained.
    """

    entropy_rise: float
    correlation: float
    picture_count: int


@dataclass(frozen=True)
class MapDrift:
    """How far a statistic of an explainer's maps has moved from those that the server made first.

    Attributes:
        statistic: "concentration", "centre_x", "centre_y", "border", "typicality" or "agreement/NAME".
        source: Where the maps come from: "requests" of callers, or "samples" of the evaluator.
        class_label: The class that they are of; empty for all.
        reference_mean: Mean over the first maps.
        current_mean: Mean over the newest ones.
        ratio: Distance of the two distributions over the smallest that is beyond chance.
    """

    statistic: str
    source: str
    class_label: str
    reference_mean: float
    current_mean: float
    ratio: float

    @property
    def drifted(self) -> bool:
        """Whether they differ beyond chance."""
        return self.ratio >= 1


@dataclass(frozen=True)
class MetricInfo:
    """One metric that explanations are measured by.

    Attributes:
        name: Name, as `QualityMeasure.metric` has it.
        description: What it measures, in a sentence.
        higher_is_better: Whether a higher score is a better one.
        minimum: Lowest possible score.
        maximum: Highest possible score.
    """

    name: str
    description: str
    higher_is_better: bool
    minimum: float
    maximum: float


@dataclass(frozen=True)
class ClassConfusion:
    """Confusion counts of one class, in pictures.

    Attributes:
        class_id: Class id.
        label: Its label.
        true_positives: It was predicted, and applies.
        false_positives: It was predicted, and does not apply.
        false_negatives: It was not predicted, and applies.
        true_negatives: It was not predicted, and does not apply.
        precision: Share of what it was predicted for to which it applies; None if it never was. Pictures that were
            likelier to be sampled count for less, here and in the recall.
        recall: Share of what it applies to for which it was predicted; None if it never does.
    """

    class_id: int
    label: str
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    precision: float | None = None
    recall: float | None = None


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of the predictions, by the ground truth reported.

    Attributes:
        picture_count: Pictures with ground truth.
        share: Share of them, 0 to 1, whose prediction was right: the top class applies or, of a sigmoid model, exactly
            the classes that apply are positive.
        classes: Each class that was predicted or applied, the most frequent first, at most 100.
    """

    picture_count: int
    share: float
    classes: tuple[ClassConfusion, ...]


@dataclass(frozen=True)
class EvaluatorInfo:
    """What measures, on sampled requests, how good explanations are.

    Attributes:
        sample_rate: Share of the requests that are sampled, 0 to 1.
        state: "no_traffic": no request was sampled within the window; "up_to_date": all samples have been measured;
            or "working": samples are being measured or wait for it.
        last_sample_time: When the last request was sampled, UTC; None if none has been.
        window: Age in seconds that a sample may have for the measurements to rest on it.
        window_sample_count: Pictures sampled within the window.
        note: What a reader of the measurements must know, in a sentence; empty if nothing.
        metrics: What is measured, by name.
        accuracy: Accuracy of the predictions; None where no ground truth has been reported.
        controls: What is measured beside the explainers and what they have to beat, by name.
    """

    sample_rate: float
    state: str
    last_sample_time: datetime | None
    window: float
    window_sample_count: int
    note: str
    metrics: Mapping[str, MetricInfo]
    accuracy: Accuracy | None = None
    controls: Mapping[str, ControlInfo] = field(default_factory=dict)


def quality_measure(message: pb.QualityMeasure) -> QualityMeasure:
    """Decodes a measure of quality."""
    return QualityMeasure(
        metric=message.metric,
        mean=message.mean,
        confidence_half_width=message.confidence_half_width,
        sample_count=message.sample_count,
        higher_is_better=message.higher_is_better,
        update_time=time_of(message.update_time) if message.HasField("update_time") else None,
        goodness=message.goodness,
        interval=(message.interval_low, message.interval_high) if message.HasField("interval_low") else None,
        skill=_skill(message.skill) if message.HasField("skill") else None,
    )


def _skill(message: pb.Skill) -> Skill:
    return Skill(message.control, message.value, message.confidence_half_width)


def standing(message: pb.Standing) -> Standing:
    """Decodes whether "auto" may choose an explainer."""
    return Standing(message.eligible, message.objection, advantage(message.advantage))


def weight_dependence(explainer: pb.ExplainerInfo) -> WeightDependence | None:
    """Decodes how an explainer's maps depend on the model's weights; None where that was not tried."""
    if not explainer.HasField("weight_dependence"):
        return None
    message = explainer.weight_dependence
    return WeightDependence(message.entropy_rise, message.correlation, message.picture_count)


def map_drift(message: pb.MapDrift) -> MapDrift:
    """Decodes how far a statistic of maps has moved."""
    means = message.reference_mean, message.current_mean
    return MapDrift(message.statistic, message.source, message.class_label, *means, message.ratio)


def _control(message: pb.ControlInfo) -> ControlInfo:
    composite = message.composite_score if message.HasField("composite_score") else None
    return ControlInfo(message.name, message.description, tuple(map(quality_measure, message.quality)), composite)


def evaluator_info(message: pb.EvaluatorInfo) -> EvaluatorInfo:
    """Decodes the description of the evaluator."""
    metrics = (
        MetricInfo(each.name, each.description, each.higher_is_better, each.minimum, each.maximum)
        for each in message.metrics
    )
    return EvaluatorInfo(
        sample_rate=message.sample_rate,
        state=enum_name(pb.EvaluatorState.DESCRIPTOR, message.state),
        last_sample_time=time_of(message.last_sample_time) if message.HasField("last_sample_time") else None,
        window=message.window.ToTimedelta().total_seconds(),
        window_sample_count=message.window_sample_count,
        note=message.note,
        metrics={each.name: each for each in metrics},
        accuracy=_accuracy(message.accuracy) if message.HasField("accuracy") else None,
        controls={each.name: _control(each) for each in message.controls},
    )


def _accuracy(message: pb.Accuracy) -> Accuracy:
    classes = (
        ClassConfusion(
            class_id=each.class_id,
            label=each.label,
            true_positives=each.true_positives,
            false_positives=each.false_positives,
            false_negatives=each.false_negatives,
            true_negatives=each.true_negatives,
            precision=_known(each, "precision", each.false_positives),
            recall=_known(each, "recall", each.false_negatives),
        )
        for each in message.classes
    )
    return Accuracy(message.picture_count, message.share, tuple(classes))


def _known(message: pb.ClassConfusion, name: str, rest: int) -> float | None:
    """A share that the server says, or that of the pictures where an older one does not."""
    if message.HasField(name):
        return float(getattr(message, name))
    count = message.true_positives + rest
    return message.true_positives / count if count else None
