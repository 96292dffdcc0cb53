"""Nets whose layers' outputs are seen, and inputs parts of which are changed to see which outputs respond."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

import numpy as np

from xai_sidecar.engine.work import Array


class Watched(Protocol):
    """A net some of whose layers' outputs are recorded."""

    def run(self, inputs: Array, until: str | None = None) -> dict[str, Array]:
        """Runs the net.

        Args:
            inputs: An input as the net takes it, (1, …) float32.
            until: The last layer that is needed; None for all.

        Returns:
            The outputs by name of their layer, in float32; a layer that was not run has none.
        """


Watch: TypeAlias = Callable[[Iterable[str]], Watched]
"""Makes a net whose layers of some names are recorded."""


def sides(example: Array, layout: str) -> tuple[int, int]:
    """Rows and columns of an input as the net takes it, (1, …), of the layout "nchw" or "nhwc"."""
    height, width = example.shape[2:] if layout == "nchw" else example.shape[1:3]
    return height, width


def contrast(one: Array, rest: Array) -> Array:
    """How far responses lean to one of two changes: from 1, only to that one, to -1, only to the other; 0 to neither.

    Args:
        one: Responses to the one change, at least 0.
        rest: Responses to the other change.
    """
    total = one + rest
    return np.divide(one - rest, total, out=np.zeros_like(total), where=(total > 0) & np.isfinite(total))


def with_changed(example: Array, other: Array, pixels: Array, layout: str) -> Array:
    """An input with the values of another one in some pixels, (rows, columns) bool, in all channels."""
    mask = pixels[None, None] if layout == "nchw" else pixels[None, :, :, None]
    return np.where(mask, other, example)
