"""Covering or uncovering a picture step by step, the most salient pixels first."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from xai_sidecar.engine.work import FloatArray, MaskedForward, Steps
from xai_sidecar.explainers.base import Context
from xai_sidecar.explainers.blur import gaussian_blur
from xai_sidecar.explainers.masks import masks_at_a_time
from xai_sidecar.metrics.base import FloatMap, MetricParameters, saliency_of, target_probabilities
from xai_sidecar.metrics.instance import Instance

Protocol = Literal["srg", "mindspore_xai", "rise"]

Fill = Literal["blurred", "mean_colour", "black"]

Counts = NDArray[np.int64]

_RISE_STEPS = 28
"""Steps of RISE's authors: 224 * 8 pixels each of 224 * 224."""

_KERNEL_SIDE, _KERNEL_DEVIATION = 11, 5

_BLUR = 0.05
"""Standard deviation of the blurred fill, as a part of the picture's shorter side: 11 of 224 pixels."""

_WHOLE = "whole"
"""Key of the picture itself, of which nothing is covered."""

_TIES = 20180619
"""Seed of the order of pixels that are equally salient, in the protocols of others."""


class StepParameters(MetricParameters):
    """How a picture is covered step by step until nothing of it is left."""

    steps: int = Field(
        default=28,
        ge=2,
        le=1000,
        description="In how many steps all pixels are covered, where the protocol is srg; more than 28 hardly change "
        "the order of explainers.",
    )
    fill: Fill = Field(
        default="mean_colour",
        description="What covered pixels show where the protocol is srg: the picture blurred by a Gaussian of a "
        "twentieth of its shorter side, the mean colour, or black.",
    )


class PerturbationParameters(StepParameters):
    """Parameters of the metrics that cover or uncover a picture."""

    protocol: Protocol = Field(
        default="srg",
        description="srg: all pixels in `steps` even steps under one fill, so that insertion less deletion is SRG and "
        "takes its passes. mindspore_xai: the most salient half of the pixels in as many steps as a square of that "
        "many pixels has rows; what is covered has the mean colour. rise: all pixels in 28 steps (8 of 224 rows each); "
        "what is covered has the mean colour in deletion and is the blurred picture in insertion. In a config, "
        "evaluator.protocol is the default.",
    )


def even_ends(pixel_count: int, steps: int) -> Counts:
    """How many pixels are covered before the first of some even steps and after each, (steps + 1,), from 0 to all.

    Steps differ by one pixel at the most. A picture of fewer pixels than steps has one for each.
    """
    steps = min(steps, pixel_count)
    return (np.arange(steps + 1, dtype=np.int64) * pixel_count + steps // 2) // steps


def step_ends(pixel_count: int, parameters: PerturbationParameters) -> Counts:
    """How many pixels are changed before the first step, which is 0, and after each, (steps + 1,).

    srg: `even_ends`. mindspore_xai: ⌊√n⌋ steps of ⌊n / 2⌊√n⌋⌋ pixels. rise: ⌈n / 28⌉ pixels a step, fewer in the last,
    which are the 1792 of its authors' Evaluation.ipynb for 224 x 224 and cost as many passes for any other size.
    """
    if parameters.protocol == "srg":
        return even_ends(pixel_count, parameters.steps)
    if parameters.protocol == "rise":
        step = math.ceil(pixel_count / _RISE_STEPS)
        return np.minimum(np.arange(math.ceil(pixel_count / step) + 1) * step, pixel_count)
    count = math.isqrt(pixel_count)
    return np.arange(count + 1) * max(1, pixel_count // (2 * count))


@dataclass(frozen=True)
class Cover:
    """What covers pixels, and in which order those that are equally salient are.

    Attributes:
        name: Of the fill: equal names mean equal fills of a picture.
        fill: As in `MaskedForward`.
        ties: Seed of the order of pixels that are equally salient.
    """

    name: str
    fill: float | FloatArray
    ties: int = _TIES


def cover_of(name: Fill, image: FloatArray, context: Context) -> Cover:
    """The cover of the protocol srg for an image (C, H, W), in units of the model input.

    Ties are broken by the context's seed, and so otherwise on each sample: over samples, no place is favoured.
    """
    if name == "blurred":
        return Cover(name, gaussian_blur(image, _BLUR * min(image.shape[1:])), context.seed)
    return Cover(name, context.units.black if name == "black" else context.units.fill, context.seed)


def ranked(saliency: FloatMap, seed: int = _TIES) -> NDArray[np.int64]:
    """The pixels of a map (H, W) as indices into the flat map, (H W,), the most salient first.

    Equally salient ones follow one another in an order drawn once for each number of pixels and seed, the same for all
    maps: neither corner is favoured, and a constant map scores by chance.
    """
    drawn = _drawn(saliency.size, seed)
    return np.asarray(drawn[np.argsort(-saliency.ravel()[drawn], kind="stable")])


@functools.lru_cache(maxsize=8)
def _drawn(count: int, seed: int) -> NDArray[np.int64]:
    """The order of so many equally salient pixels, which all maps of a sample have in common."""
    return np.random.Generator(np.random.Philox(key=seed)).permutation(count)


def order_of(instance: Instance, ties: int) -> NDArray[np.int32]:
    """The order of the pixels of an instance's map, as of `ranked`, worked out once for all metrics."""
    if ties not in instance.orders:
        instance.orders[ties] = ranked(saliency_of(instance), ties).astype(np.int32)
    return instance.orders[ties]


def ranks_of(instance: Instance, ties: int) -> NDArray[np.int32]:
    """The place of each pixel of an instance's map, (H, W), in the order of `order_of`."""
    ranks = np.empty(instance.frame, np.int32)
    ranks.ravel()[order_of(instance, ties)] = np.arange(ranks.size, dtype=np.int32)
    return ranks


def perturbed(
    instance: Instance, context: Context, cover: Cover, starts: Counts, ends: Counts, *, kept: bool
) -> Steps[Any]:
    """The target's probabilities, (n,) float64, for n copies of the picture with pixels of some ranks kept or covered.

    Rank 0 is the most salient pixel. Copies whose logits are in `Instance.shared` take no pass.

    Args:
        instance: The picture, with a map.
        context: The metric's context.
        cover: What covers pixels.
        starts: (n,), the first rank of each copy's range.
        ends: (n,), the end of its range, exclusive.
        kept: Whether the pixels in the range are kept and all others covered, or the reverse.
    """
    shared = {} if instance.shared is None else instance.shared
    if instance.logits is not None:
        shared.setdefault(_WHOLE, instance.logits)
    keys = _keys(cover, instance.image[0].size, starts.tolist(), ends.tolist(), kept=kept)
    missing = list({key: place for place, key in enumerate(keys) if key not in shared}.values())
    own: dict[Hashable, FloatArray] = {}
    ranks = ranks_of(instance, cover.ties) if missing else np.empty(0, np.int32)
    chunk = masks_at_a_time(instance.image[0].size)
    for first in range(0, len(missing), chunk):
        places = missing[first : first + chunk]
        start, end = (bounds[places].astype(np.int32)[:, np.newaxis, np.newaxis] for bounds in (starts, ends))
        inside = (start <= ranks) & (ranks < end)
        logits: FloatArray = yield MaskedForward(instance.image, (inside == kept).astype(np.float32), cover.fill)
        own.update((keys[place], row) for place, row in zip(places, logits, strict=True))
    shared.update(own)
    found = np.array([shared[key] for key in keys])
    return target_probabilities(found, instance.target, context.activation)


def wholly_covered(instance: Instance, context: Context, fill: Fill) -> Steps[Any]:
    """Leaves the logits of the wholly covered picture in `Instance.shared`: of a fill they are those of any map."""
    cover = cover_of(fill, instance.image, context)
    count = instance.image[0].size
    yield from perturbed(instance, context, cover, np.array([0]), np.array([count]), kept=False)


def _keys(cover: Cover, count: int, starts: Sequence[int], ends: Sequence[int], *, kept: bool) -> list[Hashable]:
    """What tells copies of a picture apart by what is covered: the ranks, and the cover."""
    keys: list[Hashable] = []
    for start, end in zip(starts, ends, strict=True):
        inside = kept
        if kept and (start == 0 or end == count):  # what is covered is a range, too
            start, end, inside = (end, count, False) if start == 0 else (0, start, False)
        whole = start == end and not inside
        keys.append(_WHOLE if whole else (cover.name, cover.ties, inside, start, end))
    return keys


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
