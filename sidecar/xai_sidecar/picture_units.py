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
    """Converts between values of the picture, from 0 to 1, and of the model input: input = (value - mean) / std.

    Each is one number per channel, or one for all. By default the model input is the picture, covered with 0.

    Attributes:
        mean: Subtracted when a picture is prepared.
        std: Divisor after that, above 0.
        mean_colour: Colour that perturbations cover pictures with, in [0, 1]; independent of `mean`.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    mean_colour: tuple[float, ...] = (0.0,)

    @cached_property
    def fill(self) -> float | FloatArray:
        """The mean colour in units of the model input: (C, 1, 1) float32, or the number 0 if all channels are 0."""
        return self._input_of(self.mean_colour)

    @cached_property
    def black(self) -> float | FloatArray:
        """Black in units of the model input, as of `fill`."""
        return self._input_of((0.0,))

    def _input_of(self, colour: tuple[float, ...]) -> float | FloatArray:
        values = (_column(colour) - _column(self.mean)) / _column(self.std)
        return np.asarray(values, np.float32) if values.any() else 0.0

    def brightness(self, image: FloatArray) -> NDArray[np.float64]:
        """The mean of the channels of a model input (C, H, W), as (H, W) in units of pictures, but for a constant."""
        return np.asarray((image * _column(self.std)).mean(axis=0), np.float64)

    def picture(self, image: FloatArray) -> NDArray[np.float64]:
        """A model input (C, H, W) as values of the picture, which lie from 0 to 1 where it is one."""
        return np.asarray(image * _column(self.std) + _column(self.mean), np.float64)

    def difference(self, values: FloatArray) -> FloatArray:
        """Converts differences (…, C, H, W) between pictures, 1 being the full range, to units of the model input."""
        return np.asarray(values / _column(self.std), np.float32)


PICTURES = PictureUnits()
"""Units of a net whose input is the picture itself."""


def _column(values: tuple[float, ...]) -> FloatArray:
    return np.array(values)[:, np.newaxis, np.newaxis]
