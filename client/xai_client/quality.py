"""How good explanations are, what that rests on, and how it has changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from xai_client.colours import FloatArray
from xai_client.evaluator_info import EvaluatorInfo, MapDrift, QualityMeasure, Standing
from xai_client.types import AutoChoice


@dataclass(frozen=True)
class ClassQuality:
    """How good an explainer's maps of one class are, by one metric.

    Attributes:
        class_id: The class explained.
        label: Its label.
        measure: The score.
    """

    class_id: int
    label: str
    measure: QualityMeasure


@dataclass(frozen=True)
class ExplainerQuality:
    """How good the maps of one explainer, or control, are.

    Attributes:
        explainer: Its name.
        is_control: Whether it is a control: a map made without the model.
        quality: By metric; what is not there has not been measured.
        composite_score: How good it is all in all, 0 to 1; None until known.
        standing: What speaks against it for "auto"; None until it was compared with the controls, and of controls.
        classes: By class and metric, of the classes with the most samples.
        drift: How far its maps have moved, by statistic.
    """

    explainer: str
    is_control: bool
    quality: Mapping[str, QualityMeasure]
    composite_score: float | None
    standing: Standing | None
    classes: tuple[ClassQuality, ...] = ()
    drift: tuple[MapDrift, ...] = ()


@dataclass(frozen=True)
class ConfusionCell:
    """How often a class was predicted for pictures of a class.

    Attributes:
        true_class_id: A class that applies.
        true_label: Its label.
        predicted_class_id: A class that was predicted; the same one where the prediction was right.
        predicted_label: Its label.
        count: Number of pictures.
    """

    true_class_id: int
    true_label: str
    predicted_class_id: int
    predicted_label: str
    count: int


@dataclass(frozen=True)
class QualityAlert:
    """Something that deserves a look.

    Attributes:
        name: Name of the alert, and of its section in the runbook (deploy/RUNBOOK.md).
        summary: What is the matter, in a sentence.
        advice: What to do.
    """

    name: str
    summary: str
    advice: str


@dataclass(frozen=True)
class Quality:
    """How good explanations are now.

    Attributes:
        evaluator: What measures it, the metrics, how right predictions were, and the controls.
        explainers: By name: explainers, then controls.
        weights: What each metric counts for in the composite score; others count for nothing.
        vetoes: Metrics by which an explainer must not be worse than noise.
        min_sample_count: Samples from which on a metric counts.
        auto_explainer: The explainer that "auto" takes now.
        auto_choice: Why; None if the server does not say.
        confusion: How often a class was predicted where another one applies, most frequent first.
        outlier_percentile: Pictures whose OoD percentile is below this count as outliers.
        outlier_share: Share of the pictures within the window that are, 0 to 1; None without an OoD net.
        alerts: What deserves a look.
        confusion_truncated: Whether there are more pairs of classes than `confusion` has.
    """

    evaluator: EvaluatorInfo
    explainers: Mapping[str, ExplainerQuality]
    weights: Mapping[str, float]
    vetoes: tuple[str, ...]
    min_sample_count: int
    auto_explainer: str
    auto_choice: AutoChoice | None
    confusion: tuple[ConfusionCell, ...] = ()
    outlier_percentile: float = 0.0
    outlier_share: float | None = None
    alerts: tuple[QualityAlert, ...] = ()
    confusion_truncated: bool = False


@dataclass(frozen=True)
class HistoryPoint:
    """A mean in a bin of time.

    Attributes:
        bin: Index of the bin; `QualityHistory.time_of` says when it begins.
        sample_count: Samples in it.
        mean: Their mean.
        confidence_half_width: Half the width of the mean's 95 % confidence interval; NaN with too few samples.
    """

    bin: int
    sample_count: int
    mean: float
    confidence_half_width: float


@dataclass(frozen=True)
class TrafficFigures:
    """What was predicted in a bin of time, or in a window.

    Means, deciles and shares go by what the samples count for, so that they are those of the traffic also where
    sampling prefers some requests; counts are of samples.

    Attributes:
        bin: Index of the bin; 0 of a window.
        sample_count: Samples.
        mean_probability: Mean probability of the most probable class.
        probability_deciles: Its 10th, 20th … 90th percentile; empty where there are no samples.
        ood_count: Samples with an OoD score.
        outlier_share: Share of them that are outliers, 0 to 1.
        mean_ood_percentile: Mean OoD percentile.
        classes: How often each class was the most probable one, by class id, the largest share first, at most 100.
        shares: The shares of these classes, 0 to 1.
        labels: Their labels.
        labelled_count: Samples whose true classes are known.
        right_count: Those of them whose prediction was right.
        right_share: Their share, 0 to 1; NaN without any, as means are without samples.
    """

    bin: int
    sample_count: int
    mean_probability: float
    probability_deciles: tuple[float, ...]
    ood_count: int
    outlier_share: float
    mean_ood_percentile: float
    classes: Mapping[int, int]
    labels: Mapping[int, str]
    labelled_count: int
    right_count: int
    right_share: float = math.nan
    shares: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class QualityHistory:
    """How things have changed over time. Bins without samples are left out.

    Attributes:
        start: Beginning of the first bin, UTC.
        bin_seconds: Length of a bin.
        bin_count: Number of bins.
        scores: By explainer and metric.
        shapes: Statistics of maps, by explainer and statistic: "concentration", "centre_x", "centre_y", "border"; and
            "agreement/NAME", the correlation with the maps of another explainer of the same pictures.
        traffic: What was predicted, by bin.
        current: The same of the whole time.
        reference: The same of the reference window; None where none was asked for.
        reference_scores: Scores in the reference window, by explainer and metric.
        reference_shapes: Statistics of maps in the reference window, by explainer and statistic.
        sample_count: Samples that it rests on.
        truncated: Whether there were more than are looked at, so that the oldest are missing.
        reference_truncated: The same of the reference window.
    """

    start: datetime
    bin_seconds: float
    bin_count: int
    scores: Mapping[tuple[str, str], tuple[HistoryPoint, ...]]
    shapes: Mapping[tuple[str, str], tuple[HistoryPoint, ...]]
    traffic: tuple[TrafficFigures, ...]
    current: TrafficFigures
    reference: TrafficFigures | None = None
    reference_scores: Mapping[tuple[str, str], HistoryPoint] = field(default_factory=dict)
    reference_shapes: Mapping[tuple[str, str], HistoryPoint] = field(default_factory=dict)
    sample_count: int = 0
    truncated: bool = False
    reference_truncated: bool = False

    def time_of(self, index: int) -> float:
        """When a bin begins, as Unix time in seconds."""
        return self.start.timestamp() + index * self.bin_seconds


@dataclass(frozen=True, eq=False)
class ClassMap:
    """The mean map of a class by an explainer: where the model looks for it in general.

    Attributes:
        class_id: The class explained.
        label: Its label.
        explainer: The explainer.
        sample_count: Maps that it is the mean of.
        map: The mean (H, W) float32, each side at most 32; each map was divided by its largest magnitude before.
    """

    class_id: int
    label: str
    explainer: str
    sample_count: int
    map: FloatArray = field(repr=False)
