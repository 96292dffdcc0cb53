"""Reads what MindSpore XAI's functions take: tensors or arrays, and classes in several forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.engine.work import FloatArray, IntArray

Tensor: TypeAlias = "ms.Tensor | NDArray[Any]"
"""Of MindSpore or of NumPy: what comes back is of the type that came in."""


@dataclass(frozen=True)
class Inputs:
    """Pictures as a net takes them.

    Attributes:
        images: (N, C, H, W) float32.
        as_tensor: Whether they came as MindSpore's tensor.
    """

    images: FloatArray
    as_tensor: bool

    def like(self, values: NDArray[Any]) -> Any:
        """Values as the type that the pictures came in, float32."""
        plain = np.ascontiguousarray(values, np.float32)
        return ms.Tensor(plain) if self.as_tensor else plain


def to_array(name: str, value: Any) -> NDArray[Any]:
    """A tensor or an array as an array.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(value, ms.Tensor):
        return np.asarray(value.asnumpy())
    if isinstance(value, np.ndarray):
        return value
    raise TypeError(f"{name} must be a mindspore.Tensor or a numpy.ndarray, not {type(value).__name__}")


def to_inputs(inputs: Any) -> Inputs:
    """Pictures, (N, C, H, W).

    Raises:
        TypeError: They are no tensor of numbers.
        ValueError: Their shape is another one, or a number is not finite.
    """
    images = to_array("inputs", inputs)
    if images.dtype.kind not in "fiub":
        raise TypeError(f"inputs must hold real numbers, not {images.dtype}")
    if images.ndim != 4 or not images.size:
        raise ValueError(f"inputs must have the shape (N, C, H, W), not {images.shape}")
    images = np.ascontiguousarray(images, np.float32)
    if not np.isfinite(images).all():
        raise ValueError("inputs must be finite: some of their numbers are NaN or infinite")
    return Inputs(images, isinstance(inputs, ms.Tensor))


def to_targets(targets: Any, count: int) -> IntArray:
    """The classes that are explained, as (N, l) int32.

    Args:
        targets: One class for all pictures, as an int or with no axis; (N,), one for each; or (N, l), several for each.
        count: N.

    Raises:
        TypeError: They are no whole numbers.
        ValueError: Their shape does not fit, or one is negative.
    """
    if isinstance(targets, (bool, np.bool_)):
        raise TypeError("targets must be whole numbers, not bool")
    values = np.array(targets) if isinstance(targets, (int, np.integer)) else to_array("targets", targets)
    if values.dtype.kind not in "iu":
        raise TypeError(f"targets must be whole numbers, not {values.dtype}")
    if values.ndim == 0 or (values.shape == (1,) and count != 1):
        values = np.full((count, 1), values.item())
    elif values.ndim == 1:
        values = values[:, np.newaxis]
    if values.ndim != 2 or len(values) != count or not values.size:
        raise ValueError(f"targets must be one class, or have the shape ({count},) or ({count}, l), not {values.shape}")
    if values.min() < 0:
        raise ValueError(f"targets must be class ids from 0 on, not {values.min()}")
    return np.asarray(values, np.int32)


def check_type(name: str, value: Any, *types: type) -> None:
    """Makes sure that an argument is of one of some types.

    Raises:
        TypeError: It is not.
    """
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        wanted = " or ".join(each.__name__ for each in types)
        raise TypeError(f"{name} must be a {wanted}, not a {type(value).__name__}")


def check_cell(name: str, value: Any) -> None:
    """Makes sure that an argument is a cell.

    Raises:
        TypeError: It is not.
    """
    check_type(name, value, nn.Cell)


def check_positive(name: str, value: Any) -> None:
    """Makes sure that an argument is a whole number above 0.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is not above 0.
    """
    check_type(name, value, int)
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
