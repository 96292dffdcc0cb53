"""RISE and RISEPlus: saliency from the model's output for the picture under random masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field, model_validator

from xai_sidecar.engine.work import (
    FloatArray,
    IntArray,
    Kind,
    MaskedForward,
    MaskedOodScore,
    OodScores,
    Partial,
    Steps,
)
from xai_sidecar.errors import ParameterError, PreconditionError
from xai_sidecar.explainers.activations import Probabilities
from xai_sidecar.explainers.base import (
    Computed,
    Context,
    Explainer,
    ExplainerParameters,
    MapStatus,
    ModelFacts,
    PassCounts,
    Rounding,
)
from xai_sidecar.explainers.looks import FIRST_LOOK, next_look
from xai_sidecar.explainers.masks import FIRST_MAP, CoarseMasks, MaskGrid, masks_at_a_time
from xai_sidecar.explainers.rise_estimate import EstimatedMaps, Estimator, PlainMean, Regression

_GRID_SIZE = 7
_SMALLEST = 2

_FEW_MASKS = 32
"""With fewer masks a map is unreliable, whatever its standard error: that is estimated from no more than these."""

_COMPARED = 24
"""Masks that are scored in both precisions. The error found is then itself off by a seventh, as a standard deviation of
so many numbers is; on ten photographs it was that of the whole map by a factor of two at most."""

_ERRORS_PER_TOLERANCE = 3
"""A tolerance of fewer errors of a precision than this is met in float32."""

_MOST_ERROR = 0.25
"""An error of a precision above which maps are made in float32: so much shows."""

_FINE_TOLERANCE = 0.15
"""A tolerance below this is not tried in a precision below float32: bfloat16's errors are 0.05 at the least."""

_REDUCED_MASKS = (256, 4000)
"""Numbers of masks that are worth a precision below float32. With fewer, to compare it costs too much; with more, the
noise of sampling falls below its error."""


class RiseParameters(ExplainerParameters):
    """Parameters of RISE."""

    masks: int = Field(default=1000, ge=16, le=100_000, description="Masks to spend at the most.")
    grid_size: int | None = Field(
        default=None,
        ge=2,
        le=16,
        description="Cells per side of the coarse grid of a mask. Not set: 7, fewer for inputs of fewer pixels.",
    )
    keep_probability: float = Field(default=0.5, ge=0.01, le=0.99, description="Probability of a cell being kept.")
    tolerance: float = Field(
        default=0,
        ge=0,
        le=0.5,
        description="Stop as soon as the maps' relative standard errors are at most this; 0 spends all masks.",
    )
    estimator: Literal["regression", "plain"] = Field(
        default="regression",
        description="How masks become a map: regression, the same map from fewer masks, or plain, the paper's average.",
    )

    @model_validator(mode="before")
    @classmethod
    def _contract_name(cls, values: Any) -> Any:
        """Takes `mask_count`, the contract's name, for `masks`."""
        if not isinstance(values, dict) or "mask_count" not in values:
            return values
        if "masks" in values:
            raise ValueError("masks and mask_count are the same; set one of them")
        return {("masks" if name == "mask_count" else name): value for name, value in values.items()}


RP = TypeVar("RP", bound=RiseParameters)


class Rise(Explainer[RiseParameters]):
    """Petsiuk, Das, Saenko: RISE, arXiv:1806.07421; by default with the estimator of `rise_estimate`.

    Its authors cover by zero of an input normalised by the mean of the training pictures: by their mean colour.
    """

    name: ClassVar[str] = "rise"
    order: ClassVar[int] = 60
    description: ClassVar[str] = (
        "Randomised input sampling: which pixels go with a high probability under random masks (Petsiuk et al. 2018)."
    )
    parameters_type: type[RiseParameters] = RiseParameters
    is_random: ClassVar[bool] = True

    def resolve(self, parameters: RiseParameters, model: ModelFacts) -> RiseParameters:
        """Sets the grid size, which can be no finer than the input; see `Explainer.resolve`."""
        side = min(model.height, model.width)
        if side < _SMALLEST:
            raise PreconditionError("The input is 1 pixel high or wide: too little for masks of cells.")
        size = parameters.grid_size or min(_GRID_SIZE, side)
        if size > side:
            raise ParameterError(
                f"A grid of {size} cells is finer than the input's {side} pixels. Choose fewer cells.",
                field="grid_size",
            )
        return parameters.model_copy(update={"grid_size": size})

    def largest(self, model: ModelFacts) -> dict[str, float]:
        """The grid is no finer than the input; see `Explainer.largest`."""
        return {"grid_size": min(model.height, model.width)}

    def kind(self, parameters: RiseParameters) -> Kind:
        """Masked forward passes."""
        return MaskedForward.kind

    def reduced(self, parameters: RiseParameters, model: ModelFacts) -> Kind | None:
        """The noise of sampling hides what it does; see `Explainer.reduced`, and `_sampled` for when it is used."""
        fewest, most = _REDUCED_MASKS
        is_fine = 0 < parameters.tolerance < _FINE_TOLERANCE
        return model.reduced.get(self.kind(parameters)) if fewest <= parameters.masks <= most and not is_fine else None

    def pass_counts(self, target_count: int, parameters: RiseParameters, model: ModelFacts) -> PassCounts:
        """All targets come from the same passes, some of which are made in both precisions."""
        masks = parameters.masks
        more = _COMPARED if self.reduced(parameters, model) else 0
        least = min(FIRST_LOOK, masks) if parameters.tolerance else masks
        return PassCounts(min(FIRST_MAP, masks), least + more, masks + more)

    def _compute(
        self, image: FloatArray, targets: IntArray, parameters: RiseParameters, context: Context
    ) -> Steps[Computed]:
        def scored(masks: FloatArray, kind: Kind) -> Steps[Probabilities]:
            logits: FloatArray = yield MaskedForward(image, masks, context.units.fill, kind)
            return context.activation(logits)[:, targets]

        return (yield from _sampled(image, len(targets), parameters, context, self.kind(parameters), scored))


class RisePlus(Rise):
    """RISE with every mask weighted by how much of an inlier the masked picture is.

    The weight is s = (clip(score, lo, hi) - lo) / (hi - lo), with lo the score of the covered picture and hi that
    of the picture itself; RISE weighs by s p instead of p.
    """

    name: ClassVar[str] = "rise_plus"
    order: ClassVar[int] = 70
    description: ClassVar[str] = "RISE with every mask weighted by how much of an inlier the masked picture is."

    def resolve(self, parameters: RiseParameters, model: ModelFacts) -> RiseParameters:
        """As RISE, where there is an OoD net; see `Explainer.resolve`."""
        if not model.has_ood:
            raise PreconditionError(
                "It needs an OoD net. Train one with xai-sidecar train-ood and set ood.checkpoint in the config."
            )
        return super().resolve(parameters, model)

    def kind(self, parameters: RiseParameters) -> Kind:
        """Masked forward passes with OoD scores."""
        return MaskedOodScore.kind

    def pass_counts(self, target_count: int, parameters: RiseParameters, model: ModelFacts) -> PassCounts:
        """Two more than RISE, for lo and hi."""
        counts = super().pass_counts(target_count, parameters, model)
        return PassCounts(2 + counts.first, 2 + counts.least, 2 + counts.most)

    def _compute(
        self, image: FloatArray, targets: IntArray, parameters: RiseParameters, context: Context
    ) -> Steps[Computed]:
        none_and_all = np.stack([np.full(image.shape[1:], kept, np.float32) for kept in (0, 1)])
        ends: OodScores = yield MaskedOodScore(image, none_and_all, context.units.fill)
        low, high = ends.scores.tolist()
        if not low < high:  # with these ends, every weight would be the same, and this plain RISE
            flaw = MapStatus.NO_OOD_RANGE if np.isfinite(ends.scores).all() else MapStatus.NOT_FINITE
            return Computed(np.zeros((len(targets), *image.shape[1:]), np.float32), [flaw] * len(targets))

        def scored(masks: FloatArray, kind: Kind) -> Steps[Probabilities]:
            ood: OodScores = yield MaskedOodScore(image, masks, context.units.fill, kind)
            weights = (np.clip(ood.scores, low, high) - low) / (high - low)
            return np.asarray(weights[:, np.newaxis] * context.activation(ood.logits)[:, targets])

        return (yield from _sampled(image, len(targets), parameters, context, self.kind(parameters), scored))


def _sampled(
    image: FloatArray, target_count: int, parameters: RiseParameters, context: Context, kind: Kind, scored: Any
) -> Steps[Computed]:
    """Draws masks and has them scored until they are spent or the maps are good enough.

    The map of n masks is the same, be it a partial one or that of `masks` = n.

    Args:
        image: (C, H, W).
        target_count: Number of maps.
        parameters: Of RISE.
        context: With the seed of the masks.
        kind: The kind of work in float32.
        scored: Takes masks (n, H, W) and a kind, yields the passes that it needs, returns their scores (n, t).
    """
    if parameters.grid_size is None:
        raise ValueError("the parameters are not resolved")
    height, width = image.shape[1:]
    grid = MaskGrid(height, width, parameters.grid_size, parameters.keep_probability)
    collected = _Collected((PlainMean if parameters.estimator == "plain" else Regression)(grid, target_count))
    precision = _PrecisionChoice(kind, context.reduced, parameters.tolerance)

    def computed() -> Computed:
        estimate = collected.estimate(precision.rounding)
        flaw = MapStatus.UNRELIABLE if collected.count < _FEW_MASKS else None
        return Computed(estimate.maps, [flaw] * target_count, estimate.standard_errors, precision.rounding)

    look = float(FIRST_LOOK)
    chunks = grid.draw(context.seed, parameters.masks, masks_at_a_time(height * width))
    for masks in _apart(chunks, precision.first):
        enlarged = grid.enlarge(masks)
        scores = yield from scored(enlarged, precision.kind)
        if (reduced := precision.compared(collected.count)) is not None:
            precision.compare(scores, (yield from scored(enlarged, reduced)))
        collected.add(masks, enlarged, scores)
        if collected.count == parameters.masks:
            break
        if parameters.tolerance and look <= collected.count:
            errors = collected.estimate(precision.rounding).standard_errors
            if (errors <= parameters.tolerance).all():
                break
            look = next_look(collected.count, float(errors.max()), parameters.tolerance)
        if collected.count >= FIRST_MAP:
            yield Partial(computed)
    return computed()


class _PrecisionChoice:
    """Chooses the precision of passes by what it does to the maps at hand.

    The first map's masks are scored in float32, the next ones in both precisions, and the rest in the lower one if that
    is good enough.

    Attributes:
        kind: The kind of work to be asked for.
        first: Numbers of the first masks, to be scored apart from others.
        rounding: What the lower precision does to the maps; None while it is not used.

    Args:
        kind: The kind in float32.
        reduced: The same in a precision below; None if there is none.
        tolerance: Of the maps' standard errors; 0 for none.
    """

    def __init__(self, kind: Kind, reduced: Kind | None, tolerance: float) -> None:
        self.kind = kind
        self.first = (FIRST_MAP,) if reduced is None else (FIRST_MAP, _COMPARED)
        self.rounding: Rounding | None = None
        self._reduced = reduced
        self._most_error = min(_MOST_ERROR, tolerance / _ERRORS_PER_TOLERANCE) if tolerance else _MOST_ERROR
        self._scores: list[tuple[Probabilities, Probabilities]] = []

    def compared(self, count: int) -> Kind | None:
        """The kind by which to score masks a second time, after some; None for none."""
        return self._reduced if FIRST_MAP <= count < FIRST_MAP + _COMPARED else None

    def compare(self, scores: Probabilities, reduced: Probabilities) -> None:
        """Takes in the scores of some masks in both precisions, (n, t) each."""
        self._scores.append((scores, reduced))
        if self._reduced is None or sum(len(each) for each, _ in self._scores) < _COMPARED:
            return
        errors = _errors(*(np.concatenate(each) for each in zip(*self._scores, strict=True)))
        if errors.max() <= self._most_error:
            self.kind, self.rounding = self._reduced, Rounding(self._reduced.precision, errors)


def _errors(scores: Probabilities, reduced: Probabilities) -> FloatArray:
    """The relative errors of maps made of scores in a reduced precision, (t,): what it adds to the scores' variation.

    What it does to a map is the covariance of the scores' differences with the mask, as the map is that of the scores.
    A difference that is the same under all masks does nothing.
    """
    with np.errstate(invalid="ignore"):  # of what is not finite, whose error is not, either
        differences, spreads = (reduced - scores).std(axis=0), scores.std(axis=0)
    errors = np.where(differences > 0, np.inf, np.zeros_like(spreads))
    np.divide(differences, spreads, out=errors, where=spreads > 0)
    return np.asarray(errors, np.float32)


def _apart(chunks: Iterator[CoarseMasks], sizes: Sequence[int]) -> Iterator[CoarseMasks]:
    """The same masks, cut where the first ones of each size end, so that there is a map soon."""
    ends, count = list(np.cumsum(sizes)), 0
    for masks in chunks:
        while ends and ends[0] < count + len(masks):
            size = int(ends.pop(0)) - count
            if size:
                yield CoarseMasks(masks.cells[:size], masks.shifts[:size])
                masks = CoarseMasks(masks.cells[size:], masks.shifts[size:])
                count += size
        yield masks
        count += len(masks)


class _Collected:
    """The masks scored so far. The estimate is computed at most once for each number of masks.

    Attributes:
        count: Number of masks.
    """

    def __init__(self, estimator: Estimator) -> None:
        self.count = 0
        self._estimator = estimator
        self._estimate: EstimatedMaps | None = None

    def add(self, masks: CoarseMasks, enlarged: FloatArray, scores: Probabilities) -> None:
        """See `Estimator.add`."""
        self.count += len(masks)
        self._estimator.add(masks, enlarged, scores)
        self._estimate = None

    def estimate(self, rounding: Rounding | None) -> EstimatedMaps:
        """See `Estimator.estimate`. What rounding does is independent of the noise of sampling."""
        if self._estimate is None:
            self._estimate = self._estimator.estimate()
        found = self._estimate
        if rounding is None:
            return found
        return replace(found, standard_errors=np.hypot(found.standard_errors, rounding.errors))
