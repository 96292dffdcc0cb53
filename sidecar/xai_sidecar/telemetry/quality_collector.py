"""The series of explanation quality, read from the evaluator's live figures whenever /metrics is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

STATES = ("off", "no_traffic", "up_to_date", "working")
"""What the evaluator is doing."""

OTHER = "other"
"""Value of the label `class` for all classes without series of their own."""

_CONFUSION = ("tp", "fp", "fn", "tn")


@dataclass(frozen=True)
class ScoreFigures:
    """Scores of one explainer, or control, by one metric over the rolling window.

    Attributes:
        mean: Of the scores; None without samples.
        standard_error: Of the mean; None below two samples.
        goodness: The mean mapped to [0, 1], where 1 is best; None without samples.
        goodness_error: Its standard error; None below two samples.
        count: Samples with a score.
        updated: When the latest score was measured, Unix time in seconds; None if never.
        skill: Goodness above the best control's, as a part of what that lacks; None of a control, or if not known.
        skill_half_width: Half the width of its 95 % confidence interval; None if not known.
    """

    mean: float | None = None
    standard_error: float | None = None
    goodness: float | None = None
    goodness_error: float | None = None
    count: int = 0
    updated: float | None = None
    skill: float | None = None
    skill_half_width: float | None = None


@dataclass(frozen=True)
class QualityFigures:
    """Everything that the quality series show, at one moment.

    Attributes:
        state: One of `STATES`.
        last_sample: When the last sample was taken, Unix time in seconds; None if none was.
        scores: By explainer and metric, those without samples included.
        class_scores: By explainer, metric and class: mean score and number of samples; classes with samples only.
        composites: By explainer, or control: the composite goodness in [0, 1]; None where it is not known.
        outlier_share: Share of the window's samples that are out of distribution; None without samples.
        confusion_counts: By class: true positives, false positives, false negatives, true negatives, by weight.
        beats_controls: By explainer: whether it beats all controls beyond chance, and nothing vetoes it; without those
            that have not been compared.
    """

    state: str
    last_sample: float | None = None
    scores: Mapping[tuple[str, str], ScoreFigures] = field(default_factory=dict)
    class_scores: Mapping[tuple[str, str, str], tuple[float, int]] = field(default_factory=dict)
    composites: Mapping[str, float | None] = field(default_factory=dict)
    outlier_share: float | None = None
    confusion_counts: Mapping[str, tuple[float, float, float, float]] = field(default_factory=dict)
    beats_controls: Mapping[str, bool] = field(default_factory=dict)


class QualityCollector(Collector):
    """Shows quality figures. What is not known has no series, rather than one of NaN.

    Present from the start are, since alerts or the dashboard's choices go by them: the state, the time of the last
    sample (0: none), and the number of samples of each explainer and metric; those of controls come with the first.
    Gauges need no other zeros: `rate()` and `increase()` are for counters.

    Args:
        figures: Gives the figures as of now; called on the thread that answers /metrics.
    """

    def __init__(self, figures: Callable[[], QualityFigures]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """See `prometheus_client.registry.Collector`."""
        figures = self._figures()
        yield from self._scores(figures)
        yield from self._classes(figures)
        yield _gauge(
            "xai_quality_composite",
            "Composite goodness in [0, 1] that auto goes by.",
            ("explainer",),
            (((explainer,), value) for explainer, value in figures.composites.items()),
        )
        yield _gauge(
            "xai_quality_beats_controls",
            "1 for explainers that auto may choose, which beat all controls beyond chance; 0 for those that do not.",
            ("explainer",),
            (((explainer,), float(value)) for explainer, value in figures.beats_controls.items()),
        )
        yield _gauge(
            "xai_evaluator_state",
            "1 for what the evaluator is doing, else 0.",
            ("state",),
            (((state,), float(state == figures.state)) for state in STATES),
        )
        yield _gauge(
            "xai_evaluator_last_sample_timestamp_seconds",
            "When the last sample was taken, as Unix time; 0 if none was.",
            (),
            [((), figures.last_sample or 0)],
        )
        yield _gauge(
            "xai_ood_outlier_share",
            "Share of the rolling window's samples that are out of distribution.",
            (),
            [((), figures.outlier_share)],
        )

    def _scores(self, figures: QualityFigures) -> Iterable[Metric]:
        window = "of an explainer's maps over the rolling window of samples"
        for name, text, attribute in (
            ("xai_quality_score", f"Mean score {window}.", "mean"),
            ("xai_quality_score_standard_error", "Standard error of the mean score.", "standard_error"),
            ("xai_quality_goodness", f"Mean score {window}, mapped to [0, 1] so that 1 is best.", "goodness"),
            ("xai_quality_goodness_standard_error", "Standard error of the goodness.", "goodness_error"),
            ("xai_quality_skill", "Goodness above the best control's, as a part of what that lacks.", "skill"),
            ("xai_quality_skill_half_width", "Half the 95 % confidence interval of the skill.", "skill_half_width"),
            ("xai_quality_samples", "Samples with a score in the rolling window.", "count"),
            (
                "xai_quality_last_success_timestamp_seconds",
                "When the last score was measured, as Unix time.",
                "updated",
            ),
        ):
            values = ((pair, getattr(each, attribute)) for pair, each in figures.scores.items())
            yield _gauge(name, text, ("explainer", "metric"), values)

    def _classes(self, figures: QualityFigures) -> Iterable[Metric]:
        labels = ("explainer", "metric", "class")
        means = ((key, mean) for key, (mean, _) in figures.class_scores.items())
        counts = ((key, count) for key, (_, count) in figures.class_scores.items())
        yield _gauge("xai_quality_class_score", "Mean score over the samples of a class.", labels, means)
        yield _gauge("xai_quality_class_samples", "Samples of a class with a score.", labels, counts)
        yield _gauge(
            "xai_outcomes",
            "Kept samples with known labels, by class and outcome: true or false positive or negative; those likelier "
            "to be sampled count for less.",
            ("class", "outcome"),
            (
                ((name, outcome), count)
                for name, each in figures.confusion_counts.items()
                if any(each)
                for outcome, count in zip(_CONFUSION, each, strict=True)
            ),
        )


def _gauge(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float | None]]
) -> GaugeMetricFamily:
    """A family of gauges, without those whose value is None."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values:
        if value is not None:
            family.add_metric(key, value)
    return family
