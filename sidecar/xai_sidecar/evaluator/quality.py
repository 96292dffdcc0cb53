"""How good the explanations are, as of now: what the scores of late come to, for /metrics, callers and `auto`."""

from __future__ import annotations

import enum
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.errors import ConfigError
from xai_sidecar.evaluator.choice import Candidate, Choice, QualityTable, choose, composites, quality_table
from xai_sidecar.evaluator.confusion import Accuracy, Outcomes
from xai_sidecar.evaluator.measurement import EvaluatedModel, Outcome
from xai_sidecar.evaluator.records import SampleKey, ScoreRecord
from xai_sidecar.evaluator.windows import Estimate, Window, Windows
from xai_sidecar.explainers.activations import softmax
from xai_sidecar.telemetry import QualityTelemetry

_FEW_CLASSES = 20


class State(enum.Enum):
    """What the evaluator does."""

    OFF = "off"
    NO_TRAFFIC = "no_traffic"
    UP_TO_DATE = "up_to_date"
    WORKING = "working"


@dataclass(frozen=True)
class QualitySummary:
    """How good the explanations are, and how fresh that is.

    Attributes:
        state: What the evaluator does.
        note: What a reader of the scores has to know, in a sentence or more; may be empty.
        last_sample: When the last sample was predicted, as Unix time in seconds; None if there was none.
        sample_count: How many samples are young enough to count.
        table: The scores.
        composites: The composite score of each explainer, None where it is not known.
        accuracy: How right predictions have been; None where that is not known of any.
    """

    state: State
    note: str
    last_sample: float | None
    sample_count: int
    table: QualityTable
    composites: Mapping[str, float | None]
    accuracy: Accuracy | None = None


class Quality:
    """The scores of late, the outcomes of predictions, and what follows. Any thread may use it.

    Args:
        model: The model.
        settings: How long scores count, and what `auto` goes by.
        telemetry: Shown the same.
        clock: Unix time in seconds.

    Raises:
        ConfigError: `evaluator.classes` names a class that the model does not have.
    """

    def __init__(
        self,
        model: EvaluatedModel,
        settings: EvaluatorConfig,
        telemetry: QualityTelemetry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._model = model
        self._settings = settings
        self._telemetry = telemetry
        self._clock = clock
        self._windows = Windows(settings.window_samples, settings.window_seconds)
        self._seen = Window(settings.window_samples, settings.window_seconds)
        self._outliers = Window(settings.window_samples, settings.window_seconds)
        self._outcomes = Outcomes(len(model.labels), model.activation is softmax)
        self._classes = shown_classes(model.labels, settings.classes)
        self._lock = threading.Lock()  # guards the next two
        self._last_sample: float | None = None
        self._busy = False
        self._notes: tuple[str, ...] = ()  # the evaluator's thread alone makes others of them

    # ------------------------------------------------------------------------------------------------ taking in

    def sampled(self, key: SampleKey, sample_time: float) -> None:
        """A picture was sampled, or had been before the server was started."""
        self._seen.put(key, sample_time, 0.0)
        with self._lock:
            self._last_sample = max(sample_time, self._last_sample or sample_time)
            self._telemetry.sampled(self._last_sample)

    def note(self, text: str, holds: bool = True) -> None:
        """Tells readers of the scores something, as long as it holds; to be called by one thread."""
        if holds != (text in self._notes):
            self._notes = (*self._notes, text) if holds else tuple(each for each in self._notes if each != text)

    def busy(self, busy: bool) -> None:
        """Whether there are samples that wait to be scored, or are being scored."""
        with self._lock:
            self._busy = busy

    def score(self, key: SampleKey, sample_time: float, record: ScoreRecord) -> None:
        """Takes a score, if it is one, instead of an earlier one."""
        if record.value is not None:
            self._windows.put(
                record.explainer, record.metric, key, sample_time, record.value, record.target, record.time
            )

    def forget(self, key: SampleKey, metrics: Sequence[str]) -> None:
        """Drops what some metrics said of a sample."""
        self._windows.remove(key, metrics)

    def outcome(self, explainer: str, outcome: Outcome) -> None:
        """Counts a measurement."""
        self._telemetry.evaluated(explainer, outcome.metric, outcome.seconds, outcome.pass_count, outcome.failure)

    def ood(self, key: SampleKey, sample_time: float, ood: tuple[float, float], *, new: bool = True) -> None:
        """Takes the OoD score and percentile of a sample, counted if it is new."""
        beyond = ood[1] < self._settings.ood_percentile
        self._outliers.put(key, sample_time, float(beyond), 0, self._clock())
        if new:
            self._telemetry.ood(*ood, beyond)

    def truth(self, key: SampleKey, positives: Sequence[int], class_ids: Sequence[int]) -> None:
        """Takes what a sample really showed, instead of what was said before."""
        self._outcomes.put(key, positives, class_ids)

    def gone(self, key: SampleKey) -> None:
        """A sample is not kept any more."""
        self._outcomes.remove(key)

    def truths(self, known: Iterable[tuple[SampleKey, Sequence[int], Sequence[int]]]) -> None:
        """Takes all that is kept of what samples really showed."""
        for each in known:
            self.truth(*each)

    # ------------------------------------------------------------------------------------------------ telling

    def estimate(self, explainer: str, metric: str, target: int | None = None) -> Estimate | None:
        """What the scores of late come to, over all classes or one; None if there are none."""
        return self._windows.estimate(explainer, metric, self._clock(), target)

    @property
    def state(self) -> State:
        """What the evaluator does."""
        if not self._settings.enabled:
            return State.OFF
        with self._lock:
            if self._busy:
                return State.WORKING
            quiet = self._settings.quiet_seconds
            if self._last_sample is None or self._clock() - self._last_sample > quiet:
                return State.NO_TRAFFIC
            return State.UP_TO_DATE

    def standing(self) -> QualitySummary:
        """How good the explanations are."""
        names, auto = list(self._model.methods), self._settings.auto
        return QualitySummary(
            state=self.state,
            note=self._note(),
            last_sample=self._last_sample,
            sample_count=seen.count if (seen := self._seen.estimate(self._clock())) else 0,
            table=quality_table(names, self._settings.metrics, self.estimate),
            composites=composites(names, self.estimate, auto.weights, auto.min_samples),
            accuracy=self._outcomes.accuracy(),
        )

    def choose(self, candidates: Sequence[Candidate], budget_seconds: float | None, target: int) -> Choice:
        """The explainer that `auto` means for a class."""
        auto = self._settings.auto
        choice = choose(
            candidates,
            self.estimate,
            auto.weights,
            auto.min_samples,
            budget_seconds,
            auto.fallback,
            target,
            self._settings.enabled,
        )
        self._telemetry.chosen(choice.explainer, choice.reason.value)
        return choice

    def publish(self) -> None:
        """Brings /metrics up to date."""
        telemetry, now, standing = self._telemetry, self._clock(), self.standing()
        telemetry.state(standing.state.value)
        rows = {(row.explainer, row.metric): row for row in standing.table.rows}
        listed = list(self._classes)
        for explainer in self._model.methods:
            for metric in self._settings.metrics:
                row = rows.get((explainer, metric))
                if row is None:
                    telemetry.quality(explainer, metric, None, None, None, None, 0, None)
                else:
                    mean, error, count = row.estimate.mean, row.estimate.standard_error, row.estimate.count
                    good, good_error = row.goodness, row.goodness_error
                    telemetry.quality(explainer, metric, mean, error, good, good_error, count, row.estimate.updated)
                for class_id, label in self._classes.items():
                    one = self._windows.estimate(explainer, metric, now, class_id)
                    telemetry.class_quality(explainer, metric, label, *_mean(one))
                rest = self._windows.estimate(explainer, metric, now, None, listed)
                telemetry.class_quality(explainer, metric, None, *_mean(rest))
        for explainer, value in standing.composites.items():
            telemetry.composite(explainer, value)
        outliers = self._outliers.estimate(now)
        telemetry.outlier_share(None if outliers is None else outliers.mean)
        for class_id, label in self._classes.items():
            telemetry.outcomes(label, *self._outcomes.counts(class_id))
        telemetry.outcomes(None, *self._outcomes.rest(listed))

    def _note(self) -> str:
        told = list(self._notes)
        quiet = self._settings.quiet_seconds
        if self._last_sample is None:
            told.insert(0, "No picture has been sampled yet.")
        elif self.state is State.NO_TRAFFIC:
            ago = self._clock() - self._last_sample
            told.insert(0, f"No picture has been sampled for {_told(ago)}; the scores are of pictures before that.")
        elif self.state is State.WORKING and self._clock() - self._last_sample > quiet:
            told.insert(0, "Pictures wait to be scored, but no new one has come for a while.")
        return " ".join(told)


def shown_classes(labels: Sequence[str], listed: Sequence[str]) -> dict[int, str]:
    """The classes with figures of their own on /metrics, by id, each under a name of its own.

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
            name = label
            while often[name] > (name == label) or name in shown.values():
                name = f"{name} (class {class_id})"
            shown[class_id] = name
    return shown


def _mean(estimate: Estimate | None) -> tuple[float | None, int]:
    return (None, 0) if estimate is None else (estimate.mean, estimate.count)


def _told(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
