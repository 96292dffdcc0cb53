"""RISE and RISEPlus: saliency from the model's output for the picture under random masks."""

from __future__ import annotations

from collections.abc import Iterator
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
)
from xai_sidecar.explainers.masks import FIRST_MAP, CoarseMasks, MaskGrid, masks_at_a_time
from xai_sidecar.explainers.rise_estimate import EstimatedMaps, Estimator, PlainMean, Regression

_GRID_SIZE = 7
_SMALLEST = 2

_FEW_MASKS = 32
"""With fewer masks a map is unreliable, whatever its standard error: that is estimated from no more than these."""

_FIRST_CHECK = 128
"""Masks before the error is looked at for the first time; with fewer, it says little."""

_CHECK_GROWTH = 1.25
"""Factor between the numbers of masks at which the error is looked at: each look costs some passes' time."""


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

    def pass_counts(self, target_count: int, parameters: RiseParameters, model: ModelFacts) -> PassCounts:
        """All targets come from the same passes."""
        most = parameters.masks
        return PassCounts(min(FIRST_MAP, most), min(_FIRST_CHECK, most) if parameters.tolerance else most, most)

    def _compute(
        self, image: FloatArray, targets: IntArray, parameters: RiseParameters, context: Context
    ) -> Steps[Computed]:
        def scored(masks: FloatArray) -> Steps[Probabilities]:
            logits: FloatArray = yield MaskedForward(image, masks, context.units.fill)
            return context.activation(logits)[:, targets]

        return (yield from _sampled(image, len(targets), parameters, context.seed, scored))


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

        def scored(masks: FloatArray) -> Steps[Probabilities]:
            ood: OodScores = yield MaskedOodScore(image, masks, context.units.fill)
            weights = (np.clip(ood.scores, low, high) - low) / (high - low)
            return np.asarray(weights[:, np.newaxis] * context.activation(ood.logits)[:, targets])

        return (yield from _sampled(image, len(targets), parameters, context.seed, scored))


def _sampled(
    image: FloatArray, target_count: int, parameters: RiseParameters, seed: int, scored: Any
) -> Steps[Computed]:
    """Draws masks and has them scored until they are spent or the maps are good enough.

    The map of n masks is the same, be it a partial one or that of `masks` = n.

    Args:
        image: (C, H, W).
        target_count: Number of maps.
        parameters: Of RISE.
        seed: Of the masks.
        scored: Takes masks (n, H, W), yields the passes that it needs, returns their scores (n, t).
    """
    if parameters.grid_size is None:
        raise ValueError("the parameters are not resolved")
    height, width = image.shape[1:]
    grid = MaskGrid(height, width, parameters.grid_size, parameters.keep_probability)
    collected = _Collected((PlainMean if parameters.estimator == "plain" else Regression)(grid, target_count))

    def computed() -> Computed:
        estimate = collected.estimate()
        flaw = MapStatus.UNRELIABLE if collected.count < _FEW_MASKS else None
        return Computed(estimate.maps, [flaw] * target_count, estimate.standard_errors)

    check = float(_FIRST_CHECK)
    for masks in _first_apart(grid.draw(seed, parameters.masks, masks_at_a_time(height * width))):
        enlarged = grid.enlarge(masks)
        scores = yield from scored(enlarged)
        collected.add(masks, enlarged, scores)
        if collected.count == parameters.masks:
            break
        if parameters.tolerance and check <= collected.count:
            if (collected.estimate().standard_errors <= parameters.tolerance).all():
                break
            check = _CHECK_GROWTH * collected.count
        if collected.count >= FIRST_MAP:
            yield Partial(computed)
    return computed()


def _first_apart(chunks: Iterator[CoarseMasks]) -> Iterator[CoarseMasks]:
    """The same masks, the first few by themselves, so that there is a map soon."""
    count = 0
    for masks in chunks:
        first = FIRST_MAP - count
        count += len(masks)
        if 0 < first < len(masks):
            yield CoarseMasks(masks.cells[:first], masks.shifts[:first])
            masks = CoarseMasks(masks.cells[first:], masks.shifts[first:])
        yield masks


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

    def estimate(self) -> EstimatedMaps:
        """See `Estimator.estimate`."""
        if self._estimate is None:
            self._estimate = self._estimator.estimate()
        return self._estimate
