"""How good explanations are now, put together for those who look at all of it at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from xai_sidecar.evaluator.choice import Candidate, Choice
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.quality_table import quality_row
from xai_sidecar.evaluator.reading.class_maps import Confusion
from xai_sidecar.serving.description import ModelDescription, QualityDescription, described
from xai_sidecar.serving.quality import Shown

MOST_CLASSES = 100
MOST_CELLS = 1000

_OUTLIERS = 0.3
"""Share of outliers of the alert XaiOodShareHigh."""

_FEW = 50
"""Samples below which their share says little, as of the alerts."""

_NO_CLASS = -1


@dataclass(frozen=True)
class Alert:
    """Something that deserves a look; see `QualityAlert` of the contract."""

    name: str
    summary: str
    advice: str


@dataclass(frozen=True)
class QualityReport:
    """How good explanations are now.

    Attributes:
        description: Of the model, with what has been measured.
        choice: What `auto` takes now.
        classes: The scores of single classes by explainer or control, each class with its id.
        confusion: How often classes were predicted where others apply.
        confusion_truncated: Whether there are more such pairs of classes.
        outlier_share: Share of outliers in the window; None where that is not known.
        alerts: What deserves a look.
    """

    description: ModelDescription
    choice: Choice | None
    classes: Mapping[str, list[tuple[int, QualityDescription]]]
    confusion: list[Confusion]
    confusion_truncated: bool
    outlier_share: float | None
    alerts: list[Alert]


def quality_report(shown: Shown, description: ModelDescription) -> QualityReport:
    """Puts a report together; reads the store.

    Args:
        shown: What there is to show.
        description: Of the model, as of now.

    Raises:
        StoreError: The store failed.
    """
    quality = shown.quality
    confusion, truncated = shown.reader.confusion(shown.all_samples(), MOST_CELLS)
    return QualityReport(
        description=description,
        choice=auto_choice(shown, description),
        classes={name: list(_of_classes(quality, name, description)) for name in shown.names},
        confusion=confusion,
        confusion_truncated=truncated,
        outlier_share=quality.outlier_share,
        alerts=list(_alerts(shown, description)),
    )


def auto_choice(shown: Shown, description: ModelDescription) -> Choice | None:
    """What `auto` takes without a budget, for a class of which too little is known; None where it has no choice."""
    candidates = [Candidate(each.name, each.cost.seconds) for each in description.explainers if each.cost is not None]
    return shown.quality.best(candidates, None, _NO_CLASS) if candidates else None


def _of_classes(
    quality: LiveQuality, name: str, description: ModelDescription
) -> Iterator[tuple[int, QualityDescription]]:
    for metric in description.metrics:
        for class_id, found in quality.class_statistics(name, metric.name, MOST_CLASSES).items():
            yield class_id, described(quality_row(name, metric.name, found))


def _alerts(shown: Shown, description: ModelDescription) -> Iterator[Alert]:
    quality, summary, verdicts = shown.quality, description.quality, description.quality.verdicts
    # Costly explainers are compared last, and may be the good ones.
    compared = all(name in verdicts for name in shown.evaluated.explainers)
    if verdicts and compared and not any(each.eligible for each in verdicts.values()):
        yield Alert(
            "XaiNoExplainerBeatsControls",
            "No explanation is better than a map that knows nothing of the model.",
            "Do not show maps as if they explained something. See whether the picture's preparation in the config is "
            "that of the training, and which metric says so.",
        )
    drifted = sorted({each.name for each in description.explainers for one in each.drift if one.ratio >= 1})
    if drifted:
        yield Alert(
            "XaiMapsDrifted",
            f"Maps by {', '.join(drifted)} are not what they were when the server started.",
            "Look at samples of now and of then side by side: the traffic, the camera or the preparation has changed.",
        )
    share = quality.outlier_share
    if share is not None and share > _OUTLIERS and summary.sample_count >= _FEW:
        yield Alert(
            "XaiOodShareHigh",
            f"{100 * share:.0f} % of the pictures are unlike the training pictures.",
            "List the outliers first, and see what they have in common.",
        )
