"""What callers get, in no protocol's terms: adapters make their messages of these.

`Core` gives out an `Answer`, whole or, in a stream, first without explanations, which follow as events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from xai_sidecar.engine.work import FloatArray
from xai_sidecar.evaluator.choice import Choice
from xai_sidecar.explainers.base import FLOAT32, MOST_STANDARD_ERROR, MapStatus
from xai_sidecar.imaging import Region
from xai_sidecar.serving.checking import CheckedRequest
from xai_sidecar.serving.model import ServedModel
from xai_sidecar.serving.plan import ExplanationResult, ModelOutput, Stage, ranked
from xai_sidecar.serving.planning import AUTO
from xai_sidecar.serving.requests import MapEncoding
from xai_sidecar.serving.streaming import ExplanationProgress, ExplanationVersion


class ClassScore(NamedTuple):
    """One class and how sure the model is of it; `probability` is the softmax or sigmoid of `logit`."""

    class_id: int
    label: str
    probability: float
    logit: float


@dataclass(frozen=True, eq=False)
class SaliencyMap:
    """The map of one target.

    Attributes:
        class_id: The target.
        label: Its label.
        status: Whether the map can be believed.
        values: (H, W) float32; None where the map is withheld.
        standard_error: Its relative standard error; None where it is exact, or the error is not known.
        standard_error_bound: The standard error above which it is unreliable; None where it is exact.
        precision_error: The part of the standard error that a precision below float32 makes; None in float32.
    """

    class_id: int
    label: str
    status: MapStatus
    values: FloatArray | None
    standard_error: float | None = None
    standard_error_bound: float | None = None
    precision_error: float | None = None


@dataclass(frozen=True, eq=False)
class Explanation:
    """One explanation of one picture.

    Attributes:
        name: What the caller calls it.
        explainer: The explainer that ran; "auto" where none was chosen.
        stage: How far it has come.
        message: Why it is not complete; empty if it is.
        parameters: The parameters used, by name; empty where no explainer was chosen.
        seed: The seed used; None where nothing is random.
        pass_count: Rows that went through the model for it.
        seconds: From being submitted to being done.
        precision: What its passes were computed in, those of the first masks aside.
        choice: Why this explainer, where the server chose it.
        maps: One for each target.
        encoding: How to send the maps.
    """

    name: str
    explainer: str
    stage: Stage
    message: str
    parameters: dict[str, Any]
    seed: int | None
    pass_count: int
    seconds: float
    precision: str
    choice: Choice | None
    maps: tuple[SaliencyMap, ...]
    encoding: MapEncoding


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says of one picture.

    Attributes:
        classes: The classes asked for, by falling logit, ties by class id.
        explanations: In the order of the request.
        ood: OoD score, a cosine, and percentile, 0 to 100; None unless asked for.
        picture_size: Width and height of the upright picture; None for a model input.
        region: The part of the picture that the model saw; None for a model input.
        logits: (classes,) float32, of all classes.
        probabilities: (classes,) float32, of all classes.
    """

    classes: tuple[ClassScore, ...]
    explanations: tuple[Explanation, ...]
    ood: tuple[float, float] | None
    picture_size: tuple[int, int] | None
    region: Region | None
    logits: FloatArray
    probabilities: FloatArray


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to a request.

    Attributes:
        request_id: Name of the request.
        model_version: Version of the model that answered.
        sampled: Whether the request was sampled for measuring its explanations.
        predictions: One for each picture, in the order of the request.
    """

    request_id: str
    model_version: str
    sampled: bool
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True, eq=False)
class ExplanationUpdate:
    """A version of an explanation; its stage tells whether a better one follows.

    Attributes:
        image_index: Index of the picture in the request.
        explanation_index: Index of the explanation in the request.
        explanation: The version.
    """

    image_index: int
    explanation_index: int
    explanation: Explanation


Event: TypeAlias = Answer | ExplanationProgress | ExplanationUpdate
"""What a stream consists of: an answer without explanations, then progress and versions of explanations."""


@dataclass(frozen=True)
class AnswerBuilder:
    """Makes answers to a request.

    Attributes:
        request_id: Name of the request.
        checked: The request.
        model: The model that answers.
    """

    request_id: str
    checked: CheckedRequest
    model: ServedModel

    def answer(
        self, predicted: Sequence[ModelOutput], explained: Sequence[Sequence[ExplanationResult]] | None, sampled: bool
    ) -> Answer:
        """The answer to the request.

        Args:
            predicted: What the model says of each picture.
            explained: For each picture, the explanations in the order of the request; None to leave them out.
            sampled: Whether the request was sampled.
        """
        rows = explained if explained is not None else [()] * len(predicted)
        predictions = [self._prediction(*each) for each in zip(predicted, rows, strict=True)]
        return Answer(self.request_id, self.model.version, sampled, tuple(predictions))

    def event(self, event: ExplanationProgress | ExplanationVersion) -> ExplanationProgress | ExplanationUpdate:
        """What is sent of an explanation in progress."""
        if isinstance(event, ExplanationProgress):
            return event
        key = event.key
        return ExplanationUpdate(key.image_index, key.plan_index, self._explanation(event.result, key.plan_index))

    def _prediction(self, predicted: ModelOutput, explained: Sequence[ExplanationResult]) -> Prediction:
        logits, probabilities = predicted.logits, predicted.probabilities
        best = ranked(logits, self.checked.top_k)
        scores = zip(best.tolist(), probabilities[best].tolist(), logits[best].tolist(), strict=True)
        labels, prepared = self.model.labels, predicted.prepared
        return Prediction(
            classes=tuple(ClassScore(class_id, labels[class_id], *score) for class_id, *score in scores),
            explanations=tuple(self._explanation(each, index) for index, each in enumerate(explained)),
            ood=predicted.ood if self.checked.ood else None,
            picture_size=prepared.picture_size,
            region=prepared.region,
            logits=logits,
            probabilities=probabilities,
        )

    def _explanation(self, explained: ExplanationResult, index: int) -> Explanation:
        plan = explained.plan
        chosen = not plan.candidates  # else it was not begun
        return Explanation(
            name=plan.name,
            explainer=plan.explainer.name if chosen else AUTO,
            stage=explained.stage,
            message=explained.message,
            parameters=plan.parameters.model_dump() if chosen else {},
            seed=plan.seed if chosen and plan.explainer.is_random else None,
            pass_count=explained.pass_count,
            seconds=explained.seconds,
            precision=FLOAT32 if explained.saliency.rounding is None else explained.saliency.rounding.precision,
            choice=explained.choice,
            maps=tuple(self._maps(explained)),
            encoding=self.checked.encodings[index],
        )

    def _maps(self, explained: ExplanationResult) -> Iterator[SaliencyMap]:
        saliency = explained.saliency
        errors = saliency.standard_errors
        for index, class_id in enumerate(explained.targets.tolist()):
            status = saliency.statuses[index]
            error = None if errors is None or not np.isfinite(errors[index]) else float(errors[index])
            yield SaliencyMap(
                class_id=class_id,
                label=self.model.labels[class_id],
                status=status,
                values=saliency.maps[index] if status.shown else None,
                standard_error=error,
                standard_error_bound=None if errors is None else MOST_STANDARD_ERROR,
                precision_error=None if saliency.rounding is None else float(saliency.rounding.errors[index]),
            )
