"""What every benchmark is: typed parameters, and a computation that turns a picture with its map into a score."""

from __future__ import annotations

import enum
import math
from abc import abstractmethod
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from xai_sidecar.engine.work import FloatArray, IntArray, Kind, Partial, Steps, Work
from xai_sidecar.explainers.activations import Activation, Probabilities
from xai_sidecar.explainers.base import Context, MapStatus, ModelFacts, Saliency
from xai_sidecar.extensions import Extension
from xai_sidecar.metrics.instance import ExplainerCall, Instance, no_such_class

FloatMap: TypeAlias = NDArray[np.float64]
"""A map (H, W)."""


class Parameters(BaseModel):
    """Parameters of a benchmark, each with its description, range and default."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


P = TypeVar("P", bound=Parameters)
T = TypeVar("T")


class Need(enum.Enum):
    """What a benchmark has to know besides image and target; see `Instance`."""

    SALIENCY = "saliency map"
    OBJECTS = "boxes or masks"
    CLASSES = "several classes"
    METHOD = "explainer"


class ScoreStatus(enum.Enum):
    """Whether there is a score, and why not."""

    OK = "ok"
    NO_SALIENCY = "no saliency map"
    NO_OBJECTS = "no objects"
    NO_METHOD = "no explainer"
    ONE_CLASS = "one class"
    OBJECTS_OUTSIDE = "objects outside the frame"
    MAP_NOT_FINITE = "map not finite"
    MAP_CONSTANT = "map constant"
    MAP_ZERO = "map zero"
    MAP_UNRELIABLE = "map unreliable"
    MAP_NO_OOD_RANGE = "map without OoD range"
    NOTHING_SALIENT = "nothing salient"
    OUTPUT_NOT_FINITE = "output not finite"
    OUTPUT_CONSTANT = "output constant"


_DISBELIEVED = {
    MapStatus.UNRELIABLE: ScoreStatus.MAP_UNRELIABLE,
    MapStatus.ZERO_GRADIENT: ScoreStatus.MAP_ZERO,
    MapStatus.NOT_FINITE: ScoreStatus.MAP_NOT_FINITE,
    MapStatus.NO_OOD_RANGE: ScoreStatus.MAP_NO_OOD_RANGE,
}
"""Why there is no score of a map that must not be believed."""


@dataclass(frozen=True)
class Score:
    """What a benchmark says of a subject.

    Attributes:
        value: Finite, in the benchmark's range; None if it could not be measured.
        status: OK, or why it could not.
    """

    value: float | None
    status: ScoreStatus = ScoreStatus.OK

    def __post_init__(self) -> None:
        if (self.value is None) is (self.status is ScoreStatus.OK):
            raise ValueError(f"a score of {self.value} is not {self.status.value}")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a score of {self.value} needs a status")


class Metric(Extension, Generic[P]):
    """A metric of explanations. It holds no state: the same arguments give the same score.

    A class in a module of this package can be measured, and so can one that another package names in an entry point of
    the group `xai_sidecar.metrics`. Its config section, `GetModelInfo` and the documentation are made from it.

    Attributes:
        name: As of `Extension`: letters, digits and underscores, with a slash after what it is one of several of.
        higher_is_better: Whether a higher score is a better one.
        value_range: The lowest and the highest score that there can be.
        needs: What a subject must come with.
        kinds: The work that it asks for, besides that of an explainer.
        parameters_type: Its parameters.
    """

    higher_is_better: ClassVar[bool]
    value_range: ClassVar[tuple[float, float]]
    needs: ClassVar[frozenset[Need]]
    kinds: ClassVar[frozenset[Kind]] = frozenset()
    parameters_type: type[P]

    def measure(self, subject: Instance, parameters: P, context: Context | None = None) -> Steps[Score]:
        """Measures one subject.

        Args:
            subject: The picture with its map.
            parameters: The benchmark's own.
            context: How logits become probabilities, the seed of what is random in the benchmark, and what covers
                pictures; by default softmax, 0, and 0. The explainer's seed is in `Instance.method`.

        Returns:
            The score; where the subject lacks something, or the map or the model's output has no score, the reason. It
            yields no `Partial`.

        Raises:
            TargetError: The model does not have the target.
        """
        lack = self._lack(subject)
        if lack is not None:
            return Score(None, lack)
        return (yield from self._measure(subject, parameters, context or Context()))

    @abstractmethod
    def _measure(self, subject: Instance, parameters: P, context: Context) -> Steps[Score]:
        """The score of a subject that has everything; see `measure`. A map, where one is needed, is finite."""

    @abstractmethod
    def pass_count(self, parameters: P, model: ModelFacts, method: ExplainerCall | None = None) -> int:
        """The rows that go through the model for a subject, at the most.

        Args:
            parameters: The benchmark's own.
            model: Which model.
            method: The subject's; required of benchmarks that explain again. Explainers that stop when they are good
                enough, and subjects that come with logits, may cost less.
        """

    def _lack(self, subject: Instance) -> ScoreStatus | None:
        if Need.SALIENCY in self.needs:
            if subject.saliency is None:
                return ScoreStatus.NO_SALIENCY
            if not np.isfinite(subject.saliency).all():
                return ScoreStatus.MAP_NOT_FINITE
        if Need.OBJECTS in self.needs and not len(subject.objects):
            return ScoreStatus.NO_OBJECTS
        if Need.METHOD in self.needs and subject.method is None:
            return ScoreStatus.NO_METHOD
        return None


def saliency_of(subject: Instance) -> FloatMap:
    """The subject's map, (H, W) float64."""
    if subject.saliency is None:
        raise ValueError("the subject has no map")
    return subject.saliency.astype(np.float64)


def method_of(method: ExplainerCall | None) -> ExplainerCall:
    """A method that has to be there."""
    if method is None:
        raise ValueError("the benchmark explains again and needs the method")
    return method


def target_probabilities(logits: FloatArray, target: int, activation: Activation) -> Probabilities:
    """What logits (n, classes) say of one class, (n,) float64; NaN where they do.

    Raises:
        TargetError: They have no such class.
    """
    if target >= logits.shape[1]:
        raise no_such_class(target, logits.shape[1])
    with np.errstate(invalid="ignore"):
        return activation(logits)[:, target]


def explained(
    method: ExplainerCall, image: FloatArray, targets: IntArray, context: Context
) -> Generator[Work, Any, Saliency]:
    """The maps of an image by a method, by the method's seed, without the partial ones."""
    steps = method.explainer.explain(image, targets, method.parameters, replace(context, seed=method.seed))
    return (yield from whole(steps))


def disbelief(saliency: Saliency) -> ScoreStatus | None:
    """Why a metric that explains again has no score: one of the maps must not be believed. None if all can be."""
    return next((_DISBELIEVED[status] for status in saliency.statuses if not status.believed), None)


def whole(steps: Steps[T], asks: Callable[[Work], None] = lambda work: None) -> Generator[Work, Any, T]:
    """The same computation without what is partial.

    Args:
        steps: The computation.
        asks: Told of each piece of work that it asks for.
    """
    with closing(steps):
        sent = None
        while True:
            try:
                work = steps.send(sent)
            except StopIteration as stop:
                value: T = stop.value
                return value
            if isinstance(work, Partial):
                sent = None
                continue
            asks(work)
            sent = yield work
