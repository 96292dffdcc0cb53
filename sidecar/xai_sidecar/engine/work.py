"""What an explainer can ask of a model.

A piece of work says what is wanted, for any number of rows, and nothing of how: the engine cuts it and mixes its rows
with those of other callers, the backend may fuse it as its device likes. Row i of every result belongs to row i of
every input, whatever else was in the launch.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int32]

T = TypeVar("T")

Steps: TypeAlias = Generator["Work", Any, T]
"""A computation that yields pieces of work, is sent their results, and returns a T."""


@dataclass(frozen=True)
class Kind:
    """What rows must have in common to share a launch.

    Attributes:
        name: Name of the work, as metrics label it.
        layer: The layer that it concerns, if any.
    """

    name: str
    layer: str = ""


class Work(Protocol):
    """One piece of work. Its rows are the first axis of all its arrays, and of all arrays of its result."""

    @property
    def kind(self) -> Kind:
        """What its rows may share a launch with."""

    @property
    def rows(self) -> tuple[Array, ...]:
        """The input arrays, all with the same first axis."""

    def result(self, rows: tuple[Array, ...]) -> Any:
        """The backend's arrays as what the asker is sent."""


@dataclass(frozen=True, eq=False)
class Forward:
    """Logits of the inputs.

    Attributes:
        inputs: (n, C, H, W) float32.

    Sent back: the logits, (n, classes) float32.
    """

    inputs: FloatArray
    kind: ClassVar[Kind] = Kind("forward")

    @property
    def rows(self) -> tuple[Array, ...]:
        """The inputs."""
        return (self.inputs,)

    def result(self, rows: tuple[Array, ...]) -> FloatArray:
        """The logits."""
        return np.asarray(rows[0], np.float32)


@dataclass(frozen=True, eq=False)
class InputGradient:
    """Gradient of one logit of each input by that input.

    Attributes:
        inputs: (n, C, H, W) float32.
        targets: (n,) int32, the class whose logit is derived.

    Sent back: the gradients, (n, C, H, W) float32.
    """

    inputs: FloatArray
    targets: IntArray
    kind: ClassVar[Kind] = Kind("input_gradient")

    @property
    def rows(self) -> tuple[Array, ...]:
        """Inputs and targets."""
        return self.inputs, self.targets

    def result(self, rows: tuple[Array, ...]) -> FloatArray:
        """The gradients."""
        return np.asarray(rows[0], np.float32)


@dataclass(frozen=True)
class LayerGradients:
    """Output of a layer and a logit's gradient by it, both (n, channels, rows, columns) float32."""

    activations: FloatArray
    gradients: FloatArray


@dataclass(frozen=True, eq=False)
class LayerGradient:
    """A layer's output, and the gradient of one logit of each input by that output.

    Attributes:
        inputs: (n, C, H, W) float32.
        targets: (n,) int32, the class whose logit is derived.
        layer: Name of the layer; it must have a spatial output.

    Sent back: `LayerGradients`.
    """

    inputs: FloatArray
    targets: IntArray
    layer: str

    @property
    def kind(self) -> Kind:
        """Rows of the same layer may share a launch."""
        return Kind("layer_gradient", self.layer)

    @property
    def rows(self) -> tuple[Array, ...]:
        """Inputs and targets."""
        return self.inputs, self.targets

    def result(self, rows: tuple[Array, ...]) -> LayerGradients:
        """Activations and gradients."""
        return LayerGradients(np.asarray(rows[0], np.float32), np.asarray(rows[1], np.float32))


def forward(inputs: FloatArray) -> Steps[FloatArray]:
    """The simplest computation: the logits of some inputs, (n, classes) float32."""
    logits: FloatArray = yield Forward(inputs)
    return logits


def drive(steps: Steps[T], run: Any) -> T:
    """Runs a computation outside the engine, in a script or a test.

    Args:
        steps: The computation.
        run: Called with (kind, rows); returns the result rows, as `Backend.run` does but for any number of rows.
    """
    try:
        work = next(steps)
        while True:
            work = steps.send(work.result(run(work.kind, work.rows)))
    except StopIteration as stop:
        result: T = stop.value
        return result
