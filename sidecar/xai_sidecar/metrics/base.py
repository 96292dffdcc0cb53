"""The base of all metrics: typed parameters, and a computation of a score from a picture and its saliency map."""

from __future__ import annotations

import enum
import math
from abc import abstractmethod
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
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


class MetricParameters(BaseModel):
    """Parameters of a metric, each with its description, range and default."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


P = TypeVar("P", bound=MetricParameters)
T = TypeVar("T")


class Need(enum.Enum):
    """What a metric needs besides image and target; see `Instance`."""

    SALIENCY = "saliency map"
    OBJECTS = "boxes or masks"
    CLASSES = "several classes"
    EXPLAINER = "explainer"


class ScoreStatus(enum.Enum):
    """Whether there is a score, or the reason why there is none."""

    OK = "ok"
    NO_SALIENCY = "no saliency map"
    NO_OBJECTS = "no objects"
    NO_EXPLAINER = "no explainer"
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
"""The status of a score by a map that must not be believed, by the map's status."""


@dataclass(frozen=True, eq=False)
class MaskingCurve:
    """The target's probability while a picture is covered or uncovered, the most salient pixels first.

    Attributes:
        kind: "deletion": pixels are covered, from the whole picture on; "insertion": uncovered, from nothing of it on.
        fill: What covers pixels, as of `perturbation.Cover.name`.
        tie_seed: Seed of the order of equally salient pixels, as of `perturbation.ranked`.
        pixel_counts: (steps + 1,), how many pixels are changed before the first step and after each.
        probabilities: (steps + 1,) float64, finite.
    """

    kind: str
    fill: str
    tie_seed: int
    pixel_counts: NDArray[np.int64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """The score of an instance by a metric.

    Attributes:
        value: Finite, in the metric's range; None if it could not be measured.
        status: OK, or why it could not be measured.
        curves: What it was made of, for those who want to see it; none where it was not made of curves.
    """

    value: float | None
    status: ScoreStatus = ScoreStatus.OK
    curves: tuple[MaskingCurve, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if (self.value is None) is (self.status is ScoreStatus.OK):
            raise ValueError(f"a score of {self.value} is not {self.status.value}")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a score of {self.value} needs a status")
        if self.value is not None:
            object.__setattr__(self, "value", float(self.value))  # of a metric that returns NumPy's


class Metric(Extension, Generic[P]):
    """A metric of explanations. It holds no state: the same arguments give the same score.

    A class in a module of this package can be measured, and so can one that another package names in an entry point of
    the group `xai_sidecar.metrics`. Its config section, `GetModelInfo` and the documentation are made from it.

    Attributes:
        name: As of `Extension`: letters, digits and underscores; a slash may divide a family from its member.
        higher_is_better: Whether a higher score is a better one.
        value_range: The lowest and the highest score that there can be.
        is_proportion: Whether scores are hits and misses, 1 and 0, so that their mean is a share of the pictures.
        by_default: Whether it is measured where the config does not name any.
        needs: What an instance must have to be measured.
        kinds: The kinds of work that it yields, besides those of the explainer.
        parameters_type: Its parameters.
    """

    higher_is_better: ClassVar[bool]
    value_range: ClassVar[tuple[float, float]]
    is_proportion: ClassVar[bool] = False
    by_default: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]]
    kinds: ClassVar[frozenset[Kind]] = frozenset()
    parameters_type: type[P]

    def measure(self, instance: Instance, parameters: P, context: Context | None = None) -> Steps[Score]:
        """Measures one instance.

        Args:
            instance: The picture with its map.
            parameters: The metric's parameters.
            context: The activation, the seed of everything random in the metric, and the units of pictures; by default
                softmax, 0, and pictures as model inputs. The explainer's seed is in `Instance.call`.

        Returns:
            The score; without a value where the instance lacks something, or no score is defined for the map or the
            model's output. No `Partial` is yielded.

        Raises:
            TargetError: The model does not have the target.
        """
        lack = self._lack(instance)
        if lack is not None:
            return Score(None, lack)
        return (yield from self._measure(instance, parameters, context or Context()))

    @abstractmethod
    def _measure(self, instance: Instance, parameters: P, context: Context) -> Steps[Score]:
        """The score of an instance that has all that is needed; see `measure`. Its map, where needed, is finite."""

    @abstractmethod
    def pass_count(self, parameters: P, model: ModelFacts, call: ExplainerCall | None = None) -> int:
        """The most rows that go through the model for one instance.

        Args:
            parameters: The metric's parameters.
            model: Facts about the model.
            call: The instance's; required by metrics that explain again. Explainers that stop at a tolerance, and
                instances with logits, may take fewer rows.
        """

    def _lack(self, instance: Instance) -> ScoreStatus | None:
        if Need.SALIENCY in self.needs:
            if instance.saliency is None:
                return ScoreStatus.NO_SALIENCY
            if not np.isfinite(instance.saliency).all():
                return ScoreStatus.MAP_NOT_FINITE
        if Need.OBJECTS in self.needs and not len(instance.objects):
            return ScoreStatus.NO_OBJECTS
        if Need.EXPLAINER in self.needs and instance.call is None:
            return ScoreStatus.NO_EXPLAINER
        return None


def saliency_of(instance: Instance) -> FloatMap:
    """The instance's map, (H, W) float64."""
    if instance.saliency is None:
        raise ValueError("the instance has no map")
    return instance.saliency.astype(np.float64)


def required(call: ExplainerCall | None) -> ExplainerCall:
    """The call of a metric that explains again.

    Raises:
        ValueError: There is none.
    """
    if call is None:
        raise ValueError("the metric explains again and needs the explainer call")
    return call


def target_probabilities(logits: FloatArray, target: int, activation: Activation) -> Probabilities:
    """Probabilities of one class, (n,) float64, by logits (n, classes); NaN where the logits are.

    Raises:
        TargetError: There are no logits of that class.
    """
    if target >= logits.shape[1]:
        raise no_such_class(target, logits.shape[1])
    with np.errstate(invalid="ignore"):
        return activation(logits)[:, target]


def explained(
    call: ExplainerCall, image: FloatArray, targets: IntArray, context: Context
) -> Generator[Work, Any, Saliency]:
    """Maps of an image (C, H, W) for targets (t,) by an explainer call, with its seed; no `Partial` is yielded."""
    steps = call.explainer.explain(image, targets, call.parameters, replace(context, seed=call.seed))
    return (yield from whole(steps))


def explained_once(instance: Instance, targets: IntArray, context: Context) -> Generator[Work, Any, Saliency]:
    """Maps of an instance's image for targets (t,) by its call, without those anew that are in `Instance.maps`."""
    known = dict(instance.maps)
    missing = np.array([target for target in targets.tolist() if target not in known], np.int32)
    if len(missing):
        found = yield from explained(required(instance.call), instance.image, missing, context)
        known.update(zip(missing.tolist(), zip(found.maps, found.statuses, strict=True), strict=True))
    maps, statuses = zip(*(known[target] for target in targets.tolist()), strict=True)
    return Saliency(np.stack(maps), statuses)


def disbelief(saliency: Saliency) -> ScoreStatus | None:
    """The status of a score by maps of which one must not be believed; None if all can be."""
    return next((_DISBELIEVED[status] for status in saliency.statuses if not status.believed), None)


def whole(steps: Steps[T], asks: Callable[[Work], None] = lambda work: None) -> Generator[Work, Any, T]:
    """The same computation without its `Partial` results.

    Args:
        steps: The computation.
        asks: Called with each piece of work before it is yielded.
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
