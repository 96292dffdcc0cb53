"""Live quality of the explanations: rolling windows of scores and predictions, for /metrics, callers and `auto`."""

from __future__ import annotations

import enum
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.errors import ConfigError
from xai_sidecar.evaluator.choice import Candidate, Choice, choose, composites, verdicts
from xai_sidecar.evaluator.comparison import Verdict, Yardstick
from xai_sidecar.evaluator.confusion import Accuracy, ConfusionCounts
from xai_sidecar.evaluator.controls import VETOING_CONTROL
from xai_sidecar.evaluator.measurement import EvaluatedModel
from xai_sidecar.evaluator.quality_table import QualityTable, quality_table
from xai_sidecar.evaluator.records import SampleKey, ScoreRecord
from xai_sidecar.evaluator.weighted import ScoreStatistics
from xai_sidecar.evaluator.windows import MOST_PAIRED, Window, Windows
from xai_sidecar.telemetry import OTHER, EvaluatorTelemetry, QualityFigures, ScoreFigures

_FEW_CLASSES = 20


class State(enum.Enum):
    """What the evaluator is doing."""

    OFF = "off"
    NO_TRAFFIC = "no_traffic"
    UP_TO_DATE = "up_to_date"
    WORKING = "working"


@dataclass(frozen=True)
class QualitySummary:
    """Quality of the explanations, and how fresh the figures are.

    Attributes:
        state: What the evaluator is doing.
        note: Caveats for a reader of the scores, in one or more sentences; may be empty.
        last_sample: When the last sample was predicted, as Unix time in seconds; None if there was none.
        sample_count: Samples in the rolling window.
        table: Scores by explainer or control, and metric.
        composites: Composite goodness of each explainer and control, 0 to 1; None where it is not known.
        accuracy: Share of right predictions; None where no sample has ground truth.
        verdicts: Whether `auto` may choose each explainer; without those that have not been compared with the controls.
        controls: The names and descriptions of the controls.
    """

    state: State
    note: str
    last_sample: float | None
    sample_count: int
    table: QualityTable
    composites: Mapping[str, float | None]
    accuracy: Accuracy | None = None
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    controls: Mapping[str, str] = field(default_factory=dict)


class LiveQuality:
    """Rolling windows of scores, confusion counts of predictions, and what follows from them.

    Any thread may use it.

    Args:
        model: The model.
        settings: How long scores count, and the weights of `auto`.
        telemetry: Counts OoD scores and choices of `auto`.
        clock: Unix time in seconds.
        most_paired: The most pictures that a comparison of two explainers rests on, the newest.

    Raises:
        ConfigError: `evaluator.classes` names a class that the model does not have.
    """

    def __init__(
        self,
        model: EvaluatedModel,
        settings: EvaluatorConfig,
        telemetry: EvaluatorTelemetry,
        clock: Callable[[], float] = time.time,
        most_paired: int = MOST_PAIRED,
    ) -> None:
        self._model = model
        self._settings = settings
        self._telemetry = telemetry
        self._clock = clock
        self._windows = Windows(settings.window_samples, settings.window_seconds, most_paired)
        self._samples = Window(settings.window_samples, settings.window_seconds)
        self._outliers = Window(settings.window_samples, settings.window_seconds)
        self._confusion = ConfusionCounts(len(model.labels), model.single_label)
        self._yardstick = Yardstick(
            tuple(model.controls), self.differences, tuple(settings.auto.vetoes), VETOING_CONTROL
        )
        self._classes = shown_classes(model.labels, settings.classes)
        self._lock = threading.Lock()  # guards the next two
        self._last_sample: float | None = None
        self._busy = False
        self._notes: tuple[str, ...] = ()  # replaced by the evaluator's thread alone

    # ------------------------------------------------------------------------------------------------ changes

    def add_sample(self, key: SampleKey, sample_time: float, weight: float = 1.0) -> None:
        """Counts a sampled picture, new or from before a restart.

        Args:
            key: Which sample.
            sample_time: When it was predicted, Unix time in seconds.
            weight: What it counts for in means.
        """
        self._samples.put(key, sample_time, 0.0, weight=weight)
        with self._lock:
            self._last_sample = max(sample_time, self._last_sample or sample_time)

    def note(self, text: str, holds: bool = True) -> None:
        """Adds a caveat to the summary's note, or removes it where it does not hold; to be called by one thread."""
        if holds != (text in self._notes):
            self._notes = (*self._notes, text) if holds else tuple(each for each in self._notes if each != text)

    def set_busy(self, busy: bool) -> None:
        """Sets whether samples wait to be scored, or are being scored."""
        with self._lock:
            self._busy = busy

    def put_score(self, key: SampleKey, sample_time: float, record: ScoreRecord, weight: float = 1.0) -> None:
        """Puts a score into its window in place of an earlier one; does nothing where there is no value."""
        if record.value is not None:
            self._windows.put(
                record.explainer, record.metric, key, sample_time, record.value, record.target, record.time, weight
            )

    def remove_scores(self, key: SampleKey, metrics: Sequence[str]) -> None:
        """Removes a sample's scores by some metrics."""
        self._windows.remove(key, metrics)

    def put_ood(
        self, key: SampleKey, sample_time: float, ood: tuple[float, float], weight: float = 1.0, *, new: bool = True
    ) -> None:
        """Takes the OoD score and percentile of a sample; /metrics counts it where it is new."""
        beyond = ood[1] < self._settings.ood_percentile
        self._outliers.put(key, sample_time, float(beyond), 0, self._clock(), weight)
        if new:
            self._telemetry.ood(*ood, beyond)

    def put_truth(
        self, key: SampleKey, positives: Sequence[int], class_ids: Sequence[int], weight: float = 1.0
    ) -> None:
        """Counts a sample's predicted classes against its true ones, in place of an earlier report."""
        self._confusion.put(key, positives, class_ids, weight)

    def remove_truth(self, key: SampleKey) -> None:
        """Forgets the true classes of a sample that is not kept any more."""
        self._confusion.remove(key)

    # ------------------------------------------------------------------------------------------------ readings

    def statistics(self, explainer: str, metric: str, target: int | None = None) -> ScoreStatistics | None:
        """Statistics of the scores in the window, of all classes or one; None if there are none."""
        return self._windows.statistics(explainer, metric, self._clock(), target)

    def by_explainer(self, metric: str) -> dict[str, ScoreStatistics]:
        """Statistics of the scores by a metric, of each explainer and control that has any."""
        found = {name: self.statistics(name, metric) for name in self._model.measured}
        return {name: statistics for name, statistics in found.items() if statistics is not None}

    def differences(self, explainer: str, other: str, metric: str, target: int | None = None) -> ScoreStatistics | None:
        """Statistics of how much higher one scores than the other on the same pictures; see `Windows.differences`."""
        return self._windows.differences(explainer, other, metric, self._clock(), target)

    def compare(self) -> dict[str, Verdict]:
        """Whether `auto` may choose each explainer, by name; without those that are not compared yet.

        Comparisons are kept until there are other scores: done here, they do not hold up the next choice.
        """
        auto = self._settings.auto
        return verdicts(self._model.explainers, self.statistics, auto.weights, auto.min_samples, self._yardstick)

    @property
    def state(self) -> State:
        """What the evaluator is doing."""
        if not self._settings.enabled:
            return State.OFF
        with self._lock:
            if self._busy:
                return State.WORKING
            quiet = self._settings.quiet_seconds
            if self._last_sample is None or self._clock() - self._last_sample > quiet:
                return State.NO_TRAFFIC
            return State.UP_TO_DATE

    def summary(self) -> QualitySummary:
        """The figures that `GetModelInfo` tells."""
        names, controls, auto = list(self._model.explainers), list(self._model.controls), self._settings.auto
        samples = self._samples.statistics(self._clock())
        return QualitySummary(
            state=self.state,
            note=self._note(samples),
            last_sample=self._last_sample,
            sample_count=samples.count if samples else 0,
            table=quality_table([*names, *controls], self._settings.metrics, self.statistics, self._yardstick),
            composites=composites(names, self.statistics, auto.weights, auto.min_samples, controls),
            accuracy=self._confusion.accuracy(),
            verdicts=self.compare(),
            controls={name: control.description for name, (control, _) in self._model.controls.items()},
        )

    def choose(self, candidates: Sequence[Candidate], budget_seconds: float | None, target: int) -> Choice:
        """Resolves `auto` for one class: see `evaluator.choice.choose`. /metrics counts the choice."""
        choice = self.best(candidates, budget_seconds, target)
        self._telemetry.chosen(choice.explainer, choice.reason.value)
        return choice

    def best(self, candidates: Sequence[Candidate], budget_seconds: float | None, target: int) -> Choice:
        """What `choose` would choose."""
        auto = self._settings.auto
        return choose(
            candidates,
            self.statistics,
            auto.weights,
            auto.min_samples,
            budget_seconds,
            auto.fallback,
            target,
            self._settings.enabled,
            self._yardstick,
        )

    def class_statistics(self, explainer: str, metric: str, most: int) -> dict[int, ScoreStatistics]:
        """Statistics of an explainer's scores of single classes, of those with the most scores; by class."""
        now = self._clock()
        counts = self._windows.targets(explainer, metric, now)
        frequent = sorted((each for each in counts if each is not None), key=lambda each: (-counts[each], each))[:most]
        found = {each: self._windows.statistics(explainer, metric, now, each) for each in frequent}
        return {each: statistics for each, statistics in found.items() if statistics is not None}

    @property
    def outlier_share(self) -> float | None:
        """Share of the samples in the window whose OoD percentile is that of outliers; None without any."""
        outliers = self._outliers.statistics(self._clock())
        return None if outliers is None else outliers.mean

    def figures(self) -> QualityFigures:
        """The same as /metrics shows it, with the figures of classes and the share of outliers."""
        now, summary = self._clock(), self.summary()
        counts = {name: self._confusion.counts(class_id) for class_id, name in self._classes.items()}
        return QualityFigures(
            state=summary.state.value,
            last_sample=summary.last_sample,
            scores=self._score_figures(summary.table),
            class_scores=dict(self._class_scores(now)),
            composites=summary.composites,
            outlier_share=self.outlier_share,
            beats_controls={name: verdict.eligible for name, verdict in summary.verdicts.items()},
            confusion_counts={**counts, OTHER: self._confusion.rest(self._classes)},
        )

    def _score_figures(self, table: QualityTable) -> dict[tuple[str, str], ScoreFigures]:
        figures = dict.fromkeys(product(self._model.explainers, self._settings.metrics), ScoreFigures())
        for row in table.rows:
            found = row.statistics
            figures[row.explainer, row.metric] = ScoreFigures(
                found.mean,
                found.standard_error,
                row.goodness,
                row.goodness_error,
                found.count,
                found.updated,
                row.skill.value if row.skill else None,
                row.skill.half_width if row.skill and not math.isnan(row.skill.half_width) else None,
            )
        return figures

    def _class_scores(self, now: float) -> Iterator[tuple[tuple[str, str, str], tuple[float, int]]]:
        """Mean score and count of each class with scores, and of the rest, by explainer, metric and class."""
        for explainer, metric in product(self._model.explainers, self._settings.metrics):
            for class_id, name in self._classes.items():
                if (found := self._windows.statistics(explainer, metric, now, class_id)) is not None:
                    yield (explainer, metric, name), (found.mean, found.count)
            if (found := self._windows.statistics(explainer, metric, now, None, self._classes)) is not None:
                yield (explainer, metric, OTHER), (found.mean, found.count)

    def _note(self, samples: ScoreStatistics | None) -> str:
        notes = list(self._notes)
        if samples is not None and samples.weights is not None:
            notes.append(
                "Rare classes and doubtful pictures are sampled more often and count for less: "
                f"{samples.count} pictures say as much as {samples.effective_count:.3g} that are sampled alike would."
            )
        quiet = self._settings.quiet_seconds
        if self._last_sample is None:
            notes.insert(0, "No picture has been sampled yet.")
        elif self.state is State.NO_TRAFFIC:
            ago = _duration(self._clock() - self._last_sample)
            notes.insert(0, f"No picture has been sampled for {ago}; the scores are of pictures before that.")
        elif self.state is State.WORKING and self._clock() - self._last_sample > quiet:
            notes.insert(0, "Pictures wait to be scored, but no new one has come for a while.")
        return " ".join(notes)


def shown_classes(labels: Sequence[str], listed: Sequence[str]) -> dict[int, str]:
    """Chooses the classes with series of their own on /metrics.

    Args:
        labels: The model's labels, in the order of class ids.
        listed: Labels to choose, `evaluator.classes`; of none, all classes are chosen where they are few.

    Returns:
        By class id the value of the label `class`, each different and none of them `OTHER`: a class that is called so
        is in quotes.

    Raises:
        ConfigError: There is no class of such a label.
    """
    if not listed and len(labels) > _FEW_CLASSES:
        return {}
    for label in listed:
        if label not in labels:
            raise ConfigError(
                f"the model has no class {label!r}. Name classes by their labels.", field="evaluator.classes"
            )
    often = Counter(labels)
    shown: dict[int, str] = {}
    for class_id, label in enumerate(labels):
        if not listed or label in listed:
            name = f'"{label}"' if label == OTHER else label
            while often[name] > (name == label) or name in shown.values():
                name = f"{name} (class {class_id})"
            shown[class_id] = name
    return shown


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
