"""At how many masks to look whether a map is good enough: each look costs the time of some passes."""

from __future__ import annotations

import math

FIRST_LOOK = 128
"""Masks before the error is looked at for the first time; with fewer, it says little."""

_LEAST_GROWTH, _MOST_GROWTH = 1.05, 2.0
_UNSURE_GROWTH = 1.25
"""Where the error is not what is waited for."""

_MASKS_PER_ERROR = 4 / 3
"""The errors of maps fall by about this root of the number of masks: where there are few, faster than by the square
root, since each mask also tells the regression more about the others. To look a little early costs one more look."""


def next_look(masks: float, error: float, tolerance: float) -> float:
    """The number of masks at which a map whose error was found to be too large may be good enough.

    Args:
        masks: Its number of masks.
        error: Its relative standard error; NaN or infinite where it has none yet.
        tolerance: The largest error that is good enough, above 0.
    """
    if not math.isfinite(error) or error <= tolerance:
        return masks * _UNSURE_GROWTH
    growth = math.pow(error / tolerance, _MASKS_PER_ERROR)
    return masks * min(max(growth, _LEAST_GROWTH), _MOST_GROWTH)
