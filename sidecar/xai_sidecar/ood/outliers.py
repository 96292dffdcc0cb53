"""Outliers made from training pictures, and how well scores separate them from inliers (AUROC)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image

from xai_sidecar.engine.work import FloatArray
from xai_sidecar.explainers.masks import MaskGrid

_MASK_SIDE = 7
_KEEP = 0.5

# A stream of random numbers for each purpose, so that equal seeds do not make them alike.
_NOISE, _SHUFFLE, _MASKS, _CROPS = range(4)


Seed: TypeAlias = int | Sequence[int]
"""One number of at least 0, or several."""


def noise(inputs: FloatArray, seed: Seed) -> FloatArray:
    """Noise of the pictures' brightness and contrast.

    Args:
        inputs: (n, C, H, W) float32.
        seed: Equal seeds give equal noise.

    Returns:
        (n, C, H, W) float32, each channel with the mean and the standard deviation of the input's; by turns normally
        and uniformly distributed.
    """
    generator = _generator(seed, _NOISE)
    draws = generator.standard_normal(inputs.shape, np.float32)
    # A uniform number in [-√3, √3) has a standard deviation of 1.
    draws[1::2] = (generator.random(draws[1::2].shape, np.float32) * 2 - 1) * np.float32(3**0.5)
    mean = inputs.mean(axis=(2, 3), keepdims=True)
    return np.asarray(mean + draws * inputs.std(axis=(2, 3), keepdims=True), np.float32)


def shuffled(inputs: FloatArray, seed: Seed, side: int = 8) -> FloatArray:
    """The pictures cut into `side` x `side` patches, or as many as there are pixels, in random order.

    Args:
        inputs: (n, C, H, W) float32.
        seed: Equal seeds give equal orders.
        side: Patches per side.

    Returns:
        (n, C, H, W) float32. Rows and columns at the bottom and the right that make no whole patch stay in place.
    """
    count, channels, height, width = inputs.shape
    down, across = min(side, height), min(side, width)
    rows, columns = height // down, width // across
    whole = inputs[:, :, : down * rows, : across * columns]
    patches = whole.reshape(count, channels, down, rows, across, columns).transpose(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(count, down * across, channels, rows, columns)
    orders = _generator(seed, _SHUFFLE).permuted(np.tile(np.arange(down * across), (count, 1)), axis=1)
    patches = np.take_along_axis(patches, orders[:, :, None, None, None], axis=1)
    patches = patches.reshape(count, down, across, channels, rows, columns).transpose(0, 3, 1, 4, 2, 5)
    mixed = inputs.copy()
    mixed[:, :, : down * rows, : across * columns] = patches.reshape(whole.shape)
    return mixed


def masked(inputs: FloatArray, seed: Seed) -> FloatArray:
    """The pictures under random masks as RISE lays them on, a mask each.

    Args:
        inputs: (n, C, H, W) float32.
        seed: Equal seeds give equal masks.

    Returns:
        (n, C, H, W) float32, 0 where the masks cover.
    """
    grid = MaskGrid(inputs.shape[2], inputs.shape[3], _MASK_SIDE, _KEEP)
    (mask_seed,) = _sequence(seed, _MASKS).generate_state(1, np.uint64)
    masks = [grid.enlarge(block) for block in grid.draw(int(mask_seed), len(inputs))]
    return np.asarray(inputs * np.concatenate(masks)[:, None], np.float32)


OUTLIERS = {"noise": noise, "shuffled": shuffled, "masked": masked}
"""By name, what makes outliers (n, C, H, W) of inputs (n, C, H, W) and a seed."""


def auroc(inlier_scores: FloatArray, outlier_scores: FloatArray) -> float:
    """The area under the ROC curve: the probability that an inlier scores higher than an outlier, ties counting half.

    Args:
        inlier_scores: (n,) finite.
        outlier_scores: (m,) finite.

    Returns:
        In [0, 1]; 0.5 when the scores do not separate them, 1 when every inlier scores higher than every outlier.

    Raises:
        ValueError: There are no inliers or no outliers, or a score is NaN.
    """
    if not len(inlier_scores) or not len(outlier_scores):
        raise ValueError(f"there are {len(inlier_scores)} inliers and {len(outlier_scores)} outliers")
    if np.isnan(inlier_scores).any() or np.isnan(outlier_scores).any():
        raise ValueError("some scores are NaN")
    ordered = np.sort(outlier_scores)
    lower = np.searchsorted(ordered, inlier_scores, side="left")
    not_higher = np.searchsorted(ordered, inlier_scores, side="right")
    return float((lower + not_higher).mean() / (2 * len(ordered)))


def crops(
    picture: Image.Image, count: int, seed: int, smallest: float = 0.4, largest: float = 1.0
) -> list[Image.Image]:
    """Squares cut out of a picture at random, every other one flipped: more samples where there are few pictures.

    Args:
        picture: A picture.
        count: How many.
        seed: Equal seeds give equal crops.
        smallest: Least side of a crop, as a share of the picture's shorter side; above 0.
        largest: Greatest side, likewise; at most 1.
    """
    generator = _generator(seed, _CROPS)
    cut = []
    for index in range(count):
        side = max(1, round(min(picture.size) * generator.uniform(smallest, largest)))
        left, top = generator.integers(0, (picture.width - side + 1, picture.height - side + 1))
        crop = picture.crop((int(left), int(top), int(left) + side, int(top) + side))
        cut.append(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if index % 2 else crop)
    return cut


def _generator(seed: Seed, purpose: int) -> np.random.Generator:
    return np.random.default_rng(_sequence(seed, purpose))


def _sequence(seed: Seed, purpose: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([*([seed] if isinstance(seed, int) else seed), purpose])
