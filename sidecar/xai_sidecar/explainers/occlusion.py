"""Occlusion: how far the probability drops when a window of the picture is covered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from xai_sidecar.engine.work import FloatArray, IntArray, Kind, MaskedForward, Partial, Steps
from xai_sidecar.errors import ParameterError
from xai_sidecar.explainers.base import (
    Computed,
    Context,
    Explainer,
    ExplainerParameters,
    MapStatus,
    ModelFacts,
    PassCounts,
)
from xai_sidecar.explainers.blur import gaussian_blur
from xai_sidecar.explainers.masks import FIRST_MAP, masks_at_a_time
from xai_sidecar.explainers.pull_push import pull_push

Fill = Literal["zero", "mean", "blur"]

_SMALL_SIDE = 32
"""Inputs up to this side get windows of 3 pixels, larger ones of a 32nd of the side."""

_LEAST_COVERED = 0.25
"""Share of the picture that windows must have covered for a map to be relied on: with less, not even every second place
of each row and column has been looked at, and what lies between may have been missed."""


class OcclusionParameters(ExplainerParameters):
    """Parameters of occlusion."""

    follows: ClassVar[Mapping[str, str]] = {"stride": "window_size"}

    window_size: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Side of the window in pixels of the model input. Not set: a 32nd of the shorter side, 3 up to 32.",
    )
    stride: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Pixels between two windows, at most window_size. Not set: a 32nd of the shorter side, 1 up to 32.",
    )
    fill: Fill = Field(
        default="zero",
        description="What covers the picture: zero, which is model.input.mean_colour, mean, which is the picture's own "
        "mean colour, or the picture blurred with half a window's side as standard deviation.",
    )


class Occlusion(Explainer[OcclusionParameters]):
    """Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, arXiv:1311.2901, section 4.2.

    The drop of the target's probability, with its sign, averaged over the windows that cover a pixel. Windows start at
    every stride; the last one ends at the edge, so that every pixel is covered. Partial maps are the same average over
    the windows so far, which lie all over the picture, interpolated where there was none yet; as long as that is
    nearly everywhere, they are unreliable.
    """

    name: ClassVar[str] = "occlusion"
    order: ClassVar[int] = 50
    description: ClassVar[str] = (
        "Drop of the probability when a window of the picture is covered (Zeiler, Fergus 2014), signed."
    )
    parameters_type = OcclusionParameters

    def resolve(self, parameters: OcclusionParameters, model: ModelFacts) -> OcclusionParameters:
        """Sets window and stride where they are not given; see `Explainer.resolve`."""
        side = min(model.height, model.width)
        window, step = (side // 32, side // 32) if side > _SMALL_SIDE else (min(3, side), 1)
        window = parameters.window_size or window
        stride = parameters.stride or min(step, window)
        if window > side:
            raise ParameterError(
                f"A window of {window} pixels does not fit the input, whose shorter side is {side}. Make it smaller.",
                field="window_size",
            )
        if stride > window:
            raise ParameterError(
                f"A stride of {stride} leaves gaps between windows of {window} pixels. Set it to {window} or less.",
                field="stride",
            )
        return parameters.model_copy(update={"window_size": window, "stride": stride})

    def largest(self, model: ModelFacts) -> dict[str, float]:
        """Windows fit into the input; see `Explainer.largest`."""
        side = min(model.height, model.width)
        return {"window_size": side, "stride": side}

    def kind(self, parameters: OcclusionParameters) -> Kind:
        """Masked forward passes."""
        return MaskedForward.kind

    def pass_counts(self, target_count: int, parameters: OcclusionParameters, model: ModelFacts) -> PassCounts:
        """One for the picture as it is, and one for each window."""
        window, stride = _sizes(parameters)
        count = math.prod(len(_starts(length, window, stride)) for length in (model.height, model.width))
        return PassCounts(1 + min(FIRST_MAP, masks_at_a_time(model.height * model.width), count), 1 + count, 1 + count)

    def _compute(
        self, image: FloatArray, targets: IntArray, parameters: OcclusionParameters, context: Context
    ) -> Steps[Computed]:
        height, width = image.shape[1:]
        window, stride = _sizes(parameters)
        fill = context.units.fill if parameters.fill == "zero" else _fill(image, parameters.fill, window)
        whole: FloatArray = yield MaskedForward(image, np.ones((1, height, width), np.float32), fill)
        before = context.activation(whole)[0, targets]
        drops = np.zeros((len(targets), height, width))
        coverage = np.zeros((height, width))

        def average() -> Computed:
            covered = coverage > 0
            maps = pull_push(drops / np.maximum(coverage, 1), covered)
            flaw = MapStatus.UNRELIABLE if covered.mean() < _LEAST_COVERED else None
            return Computed(maps.astype(np.float32), [flaw] * len(targets))

        windows = _windows(_starts(height, window, stride), _starts(width, window, stride), window, image)
        for chunk, (rows, columns) in enumerate(windows):
            if chunk:
                yield Partial(average)
            masks = np.float32(1) - rows[:, :, None] * columns[:, None, :]
            logits: FloatArray = yield MaskedForward(image, masks, fill)
            drop = before - context.activation(logits)[:, targets]
            for target in range(len(targets)):
                drops[target] += (rows * drop[:, target, None]).T @ columns
            coverage += rows.T @ columns
        return average()


def _sizes(parameters: OcclusionParameters) -> tuple[int, int]:
    if parameters.window_size is None or parameters.stride is None:
        raise ValueError("the parameters are not resolved")
    return parameters.window_size, parameters.stride


def _starts(length: int, window: int, stride: int) -> NDArray[Any]:
    """Where windows start along an axis, so that every pixel is covered."""
    return np.append(np.arange(0, length - window, stride), length - window)


def _windows(
    tops: NDArray[Any], lefts: NDArray[Any], window: int, image: FloatArray
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """The windows chunk by chunk: for each of n, its rows (n, H) and its columns (n, W), 1 inside and 0 outside."""
    height, width = image.shape[1:]
    corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)[_evenly(len(tops), len(lefts))]
    count = masks_at_a_time(height * width)
    first = min(FIRST_MAP, count)  # few, so that there is a map soon
    starts = [0, *range(first, len(corners), count)]
    for start, stop in pairwise([*starts, len(corners)]):
        chunk = corners[start:stop]
        rows = np.arange(height) - chunk[:, :1]
        columns = np.arange(width) - chunk[:, 1:]
        yield (
            ((rows >= 0) & (rows < window)).astype(np.float32),
            ((columns >= 0) & (columns < window)).astype(np.float32),
        )


def _evenly(height: int, width: int) -> NDArray[Any]:
    """The places of a grid, (height width,), in an order of which every beginning lies evenly all over it.

    Bayer's: An optimum method for two-level rendition of continuous-tone pictures, IEEE ICC 1973. A place's rank has
    the bits of row xor column and of row by turns, the lowest ones first. The grid is the middle of one whose sides are
    a power of two.
    """
    bits = (max(height, width) - 1).bit_length()
    row = np.arange(height)[:, None] + (2**bits - height) // 2
    column = np.arange(width) + (2**bits - width) // 2
    rank = np.zeros((height, width), np.int64)
    for bit in range(bits):
        rank = rank << 2 | ((row ^ column) >> bit & 1) << 1 | (row >> bit & 1)
    return np.argsort(rank, axis=None)


def _fill(image: FloatArray, fill: Fill, window: int) -> FloatArray:
    """The cover made of the picture itself, which is the same in any units: its mean colour, or the picture blurred."""
    if fill == "mean":
        return np.broadcast_to(image.mean(axis=(1, 2), keepdims=True), image.shape)
    return gaussian_blur(image, window / 2)
