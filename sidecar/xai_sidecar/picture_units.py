"""Colours and noise in units of a picture, so that it does not matter where a net's normalisation stands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class PictureUnits:
    """How values of a model input stand to those of the picture, which go from 0 to 1: input = (value - mean) / std.

    Each is one number for each channel, or one for all. By default a model input is the picture, covered by 0.

    Attributes:
        mean: What preparing subtracts.
        std: What it then divides by, above 0.
        mean_colour: What covers pictures, in [0, 1]: a colour that says nothing, whatever the mean is.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    mean_colour: tuple[float, ...] = (0.0,)

    @cached_property
    def fill(self) -> float | FloatArray:
        """The mean colour in a model input: (C, 1, 1) float32, or the number 0 where it is that in every channel."""
        colour = (_column(self.mean_colour) - _column(self.mean)) / _column(self.std)
        return np.asarray(colour, np.float32) if colour.any() else 0.0

    def difference(self, values: FloatArray) -> FloatArray:
        """What differences (…, C, H, W) between pictures, 1 being their full range, are between model inputs."""
        return np.asarray(values / _column(self.std), np.float32)


PICTURES = PictureUnits()
"""Of a net that takes pictures as they are."""


def _column(values: tuple[float, ...]) -> FloatArray:
    return np.array(values)[:, np.newaxis, np.newaxis]
