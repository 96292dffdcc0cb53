"""What is to be explained of each picture, and the results: plain values between the stages of a call."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xai_sidecar.engine.work import FloatArray, IntArray, Kind
from xai_sidecar.evaluator.choice import Choice
from xai_sidecar.explainers.base import Explainer, ExplainerParameters, ModelFacts, PassCounts, Saliency
from xai_sidecar.imaging import Prepared


@dataclass(frozen=True)
class Targets:
    """Which classes to explain: those listed, or all from a probability on, or the `top_count` most probable.

    Where nothing is set it is the most probable one, if it counts as predicted.
    """

    class_ids: Collection[int] = ()
    min_probability: float | None = None
    top_count: int | None = None

    @property
    def by_default(self) -> bool:
        """Whether nothing is set."""
        return not self.class_ids and self.min_probability is None and self.top_count is None

    @property
    def fewest(self) -> int:
        """The smallest number of classes that it can select, at least one."""
        if self.class_ids:
            return len(self.class_ids)
        return 1 if self.min_probability is not None else self.top_count or 1

    def most(self, limit: int) -> int:
        """The largest number of classes that it can select."""
        if self.class_ids:
            return len(self.class_ids)
        return limit if self.min_probability is not None else self.top_count or 1

    def of(self, logits: FloatArray, probabilities: FloatArray, limit: int) -> IntArray:
        """The classes to explain of one prediction, (t,) int32, at most `limit` of them; maybe none."""
        if self.class_ids:
            return np.array(tuple(self.class_ids), np.int32)
        if self.min_probability is not None:
            ranking = ranked(logits)
            return ranking[probabilities[ranking] >= self.min_probability][:limit]
        return ranked(logits, self.top_count or 1)


@dataclass(frozen=True)
class Condition:
    """When to explain: where any of the fields set holds, or always where none is.

    Attributes:
        top_probability_below: The highest probability is below this.
        ood_percentile_below: The OoD percentile is below this.
    """

    top_probability_below: float | None = None
    ood_percentile_below: float | None = None

    @property
    def always(self) -> bool:
        """Whether nothing is set."""
        return self.top_probability_below is None and self.ood_percentile_below is None

    def failure(self, top_probability: float, ood_percentile: float | None) -> str:
        """Why it does not hold, in a sentence; empty if it does."""
        checks = []
        if self.top_probability_below is not None:
            checks.append(("top probability", top_probability, self.top_probability_below))
        if self.ood_percentile_below is not None and ood_percentile is not None:
            checks.append(("OoD percentile", ood_percentile, self.ood_percentile_below))
        if not checks or any(value < limit for _, value, limit in checks):
            return ""
        reasons = ", and ".join(f"the {what} is {value:.4g}, not below {limit:.4g}" for what, value, limit in checks)
        return f"Its condition did not hold: {reasons}."


@dataclass(frozen=True)
class ExplanationPlan:
    """One explanation to be made of every picture of a request.

    Attributes:
        name: What the caller calls it.
        explainer: The explainer that makes it.
        parameters: The explainer's, resolved.
        targets: Which classes.
        kind: The kind of work that most of its passes are of.
        reduced: That kind in a precision below float32, if it may use one; None if not.
        counts: Passes that it takes for the fewest targets that it can have.
        seed: Seed of everything random in it.
        budget_seconds: Longest time to spend on it; None for as long as it takes.
        condition: When to make it at all.
        candidates: The plans to choose from once the prediction is known, by explainer, where the caller leaves the
            choice to the server; the plan itself is then the quickest of them. Empty otherwise.
    """

    name: str
    explainer: Explainer[Any]
    parameters: ExplainerParameters
    targets: Targets
    kind: Kind
    counts: PassCounts
    seed: int = 0
    budget_seconds: float | None = None
    condition: Condition = Condition()
    reduced: Kind | None = None
    candidates: Mapping[str, ExplanationPlan] = field(default_factory=dict)

    @property
    def first_kind(self) -> Kind:
        """The kind of work of the passes until the first map."""
        return replace(self.kind, precision="")

    def most_passes(self, target_limit: int, model: ModelFacts) -> int:
        """The most passes that it can take, whichever candidate is chosen."""
        targets = self.targets.most(target_limit)
        plans = self.candidates.values() or [self]
        return max(plan.explainer.pass_counts(targets, plan.parameters, model).most for plan in plans)


class Stage(enum.Enum):
    """How far an explanation has come."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    SKIPPED = "skipped"
    PARTIAL = "partial"


@dataclass(frozen=True)
class ExplanationResult:
    """An explanation of one picture.

    Attributes:
        plan: What was to be explained and how.
        targets: (t,) int32, the classes explained; none where there are no maps.
        saliency: Their maps.
        pass_count: Rows that went through the model for them.
        seconds: Time from being submitted to being done.
        stage: Whether it is complete.
        message: Why it is not; empty if it is.
        choice: Why this explainer, where the server chose it.
    """

    plan: ExplanationPlan
    targets: IntArray
    saliency: Saliency
    pass_count: int
    seconds: float
    stage: Stage = Stage.COMPLETE
    message: str = ""
    choice: Choice | None = None


@dataclass(frozen=True)
class ModelOutput:
    """What the model says of one picture.

    Attributes:
        prepared: The picture as the model saw it.
        logits: (classes,) float32.
        probabilities: (classes,) float32.
        ood: Its OoD score and percentile, if they were wanted.
    """

    prepared: Prepared
    logits: FloatArray
    probabilities: FloatArray
    ood: tuple[float, float] | None = None


def ranked(logits: FloatArray, count: int | None = None) -> IntArray:
    """Class ids by falling logit, ties by class id, (count,) int32.

    That is by falling probability, too, where float32 has different ones: it rounds the sigmoids of 18 and 40 to 1.

    Args:
        logits: (classes,), finite.
        count: How many; all if there are no more, or None.
    """
    if count is None or count >= len(logits):
        return np.argsort(-logits, kind="stable").astype(np.int32)
    # To sort a thousand classes takes three times as long as to find the best ones.
    least = np.partition(logits, len(logits) - count)[len(logits) - count]
    best = np.flatnonzero(logits >= least)
    first: IntArray = best[np.argsort(-logits[best], kind="stable")[:count]].astype(np.int32)
    return first


def positives(logits: FloatArray, probabilities: FloatArray, least: float | None) -> IntArray:
    """The classes that count as predicted, ascending, (n,) int32.

    Args:
        logits: (classes,).
        probabilities: (classes,).
        least: The least probability at which a class counts; None where only the most probable one counts, always.
    """
    if least is None:
        return np.array([logits.argmax()], np.int32)  # the first of equals
    return np.flatnonzero(probabilities >= least).astype(np.int32)


def without_positive(probabilities: FloatArray, least: float) -> str:
    """The message for a picture on which no class counts as predicted: why nothing is explained, and the cure."""
    return (
        f"No class reaches the probability of {least:g} from which on it counts as predicted (the highest is "
        f"{float(probabilities.max()):.4g}). Name class_ids or top_count to have one explained all the same."
    )


def in_units(seconds: float) -> str:
    """A time to be read by people: in milliseconds below a second."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
