"""Covering or uncovering a picture step by step, the most salient pixels first."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from xai_sidecar.engine.work import FloatArray, MaskedForward, Steps
from xai_sidecar.explainers.base import Context
from xai_sidecar.explainers.masks import masks_at_a_time
from xai_sidecar.metrics.base import FloatMap, MetricParameters, saliency_of, target_probabilities
from xai_sidecar.metrics.instance import Instance

Protocol = Literal["mindspore_xai", "rise"]

Counts = NDArray[np.int64]

_RISE_STEPS = 28
"""Steps of RISE's authors: 224 * 8 pixels each of 224 * 224."""

_KERNEL_SIDE, _KERNEL_DEVIATION = 11, 5

_TIES = 20180619
"""Seed of the order of pixels that are equally salient."""


class PerturbationParameters(MetricParameters):
    """Parameters of the metrics that cover or uncover a picture."""

    protocol: Protocol = Field(
        default="mindspore_xai",
        description="mindspore_xai: the most salient half of the pixels in as many steps as a square of that many "
        "pixels has rows; what is covered has the mean colour. rise: all pixels in 28 steps (8 of 224 rows each); what "
        "is covered has the mean colour in deletion and is the blurred picture in insertion. In a config, "
        "evaluator.protocol is the default.",
    )


def step_ends(pixel_count: int, protocol: Protocol) -> Counts:
    """How many pixels are changed before the first step, which is 0, and after each, (steps + 1,).

    mindspore_xai: ⌊√n⌋ steps of ⌊n / 2⌊√n⌋⌋ pixels. rise: ⌈n / 28⌉ pixels a step, fewer in the last, which are the 1792
    of its authors' Evaluation.ipynb for 224 x 224 and cost as many passes for any other size.
    """
    if protocol == "rise":
        step = math.ceil(pixel_count / _RISE_STEPS)
        return np.minimum(np.arange(math.ceil(pixel_count / step) + 1) * step, pixel_count)
    count = math.isqrt(pixel_count)
    return np.arange(count + 1) * max(1, pixel_count // (2 * count))


def ranked(saliency: FloatMap) -> NDArray[np.int64]:
    """The pixels of a map (H, W) as indices into the flat map, (H W,), the most salient first.

    Equally salient ones follow one another in an order drawn once for each number of pixels, the same for all maps:
    neither corner is favoured, and a constant map scores by chance.
    """
    drawn = np.random.Generator(np.random.Philox(key=_TIES)).permutation(saliency.size)
    return np.asarray(drawn[np.argsort(-saliency.ravel()[drawn], kind="stable")])


def perturbed(
    instance: Instance,
    context: Context,
    starts: Counts,
    ends: Counts,
    *,
    kept: bool,
    fill: float | FloatArray | None = None,
) -> Steps[Any]:
    """The target's probabilities, (n,) float64, for n copies of the picture with pixels of some ranks kept or covered.

    Rank 0 is the most salient pixel.

    Args:
        instance: The picture, with a map.
        context: The metric's context.
        starts: (n,), the first rank of each copy's range.
        ends: (n,), the end of its range, exclusive.
        kept: Whether the pixels in the range are kept and all others covered, or the reverse.
        fill: What covers pixels, as in `MaskedForward`; by default the mean colour.
    """
    fill = context.units.fill if fill is None else fill
    ranks = np.empty(instance.frame, np.int32)
    ranks.ravel()[ranked(saliency_of(instance))] = np.arange(ranks.size)
    chunk = masks_at_a_time(ranks.size)
    probabilities = []
    for first in range(0, len(starts), chunk):
        start, end = (places[first : first + chunk, np.newaxis, np.newaxis] for places in (starts, ends))
        inside = (start <= ranks) & (ranks < end)
        logits: FloatArray = yield MaskedForward(instance.image, (inside == kept).astype(np.float32), fill)
        probabilities.append(target_probabilities(logits, instance.target, context.activation))
    return np.concatenate(probabilities)


def rise_blur(image: FloatArray, fill: float | FloatArray = 0.0) -> FloatArray:
    """An image (C, H, W) as RISE's authors blur it, float32; github.com/eclique/RISE, Evaluation.ipynb.

    The kernel of 11 x 11 is a single 1 blurred by a Gaussian of 5 pixels that is reflected at the kernel's edges, which
    is what SciPy's `gaussian_filter` does by default, so that its weights add up to 1. Beyond its edges the picture has
    the mean colour, which is zero of the authors' input.
    """
    height, width = image.shape[1:]
    return np.asarray(_blurring(height) @ (image - fill) @ _blurring(width).T + fill, np.float32)


def _kernel() -> NDArray[np.float64]:
    """One axis of the kernel, (11,)."""
    reach = 4 * _KERNEL_DEVIATION  # where SciPy cuts the Gaussian off
    distances = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (distances / _KERNEL_DEVIATION) ** 2)
    places = (_KERNEL_SIDE // 2 + distances) % (2 * _KERNEL_SIDE)
    folded = np.minimum(places, 2 * _KERNEL_SIDE - 1 - places)
    return np.asarray(np.bincount(folded, weights / weights.sum()), np.float64)


@functools.lru_cache(maxsize=8)
def _blurring(length: int) -> NDArray[np.float64]:
    """The blur along one axis as a matrix: (length, length), a row of weights for each pixel of the result."""
    reach = _KERNEL_SIDE // 2
    distances = np.arange(length) - np.arange(length)[:, np.newaxis]
    weights = _kernel()[np.clip(distances, -reach, reach) + reach]
    return np.asarray(np.where(abs(distances) <= reach, weights, 0.0))
