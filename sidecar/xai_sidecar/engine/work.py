"""The kinds of work that a computation can ask of a model.

A `Work` says what is wanted for any number of rows, not how: the engine slices it and batches its rows with those of
other jobs, and the backend runs it as suits its device. Row i of every result belongs to row i of every input, whatever
else was in the batch. `Backend.run` has all kinds in a table.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int32]

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, eq=False)
class Partial(Generic[T]):
    """Yielded by a computation that could return a result now, if it is cut short. Nothing is sent back for it.

    Attributes:
        make: Computes that result. It may be called any time while the computation is suspended, until it yields the
            next one.
    """

    make: Callable[[], T]


Steps: TypeAlias = Generator["Work | Partial[T]", Any, T]
"""A computation: a generator that yields `Work`, is sent the result of each, and returns a T."""


@dataclass(frozen=True)
class Kind:
    """A kind of work: rows of the same kind may share a batch.

    Attributes:
        name: Name of the work, as metrics label it.
        layer: Name of the layer, for kinds that need one; else empty.
        relu_rule: How gradients pass a ReLU: "" as mathematics has it, or one of `RELU_RULES`.
        precision: What passes are computed in: "" for float32, or the backend's `reduced_precision`.
    """

    name: str
    layer: str = ""
    relu_rule: str = ""
    precision: str = ""


KIND_NAMES = (
    "forward",
    "masked_forward",
    "ood_score",
    "masked_ood_score",
    "features",
    "input_gradient",
    "layer_gradient",
)
"""The names of all kinds; the table in `Backend.run` has what goes in and comes out of each."""

RELU_RULES = ("guided", "deconvolution")
"""ReLU rules of backward passes: the gradient is rectified after the ReLU's own mask (guided), or instead of it."""


class Work(Protocol):
    """A request of a computation to the model. The first axis of all its arrays, and of its results, are the rows."""

    @property
    def kind(self) -> Kind:
        """Its kind; rows of the same kind may share a batch."""

    @property
    def rows(self) -> tuple[Array, ...]:
        """The input arrays, all with the same first axis."""

    def result(self, rows: tuple[Array, ...]) -> Any:
        """Converts the backend's arrays to what the computation is sent."""


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

    def result(self, rows: tuple[Array, ...]) -> Any:
        """The logits."""
        return np.asarray(rows[0], np.float32)


@dataclass(frozen=True, eq=False)
class MaskedForward:
    """Logits of one image under many masks: of image * mask + fill * (1 - mask), for each mask.

    Attributes:
        image: (C, H, W) float32.
        masks: (n, H, W) float32 in [0, 1]; 1 leaves a pixel as it is.
        fill: What covers the image where the mask is 0: a number, or (C, 1, 1) or (C, H, W) float32.
        kind: This kind, maybe in another precision.

    Sent back: the logits, (n, classes) float32.
    """

    image: FloatArray
    masks: FloatArray
    fill: float | FloatArray = 0.0
    kind: Kind = Kind("masked_forward")

    @cached_property
    def rows(self) -> tuple[Array, ...]:
        """Masks, and the image and the fill for each of them; these two are views that take no memory."""
        shape = (len(self.masks), *self.image.shape)
        fill = np.asarray(self.fill, np.float32)
        return self.masks, np.broadcast_to(self.image, shape), np.broadcast_to(fill, shape)

    def result(self, rows: tuple[Array, ...]) -> Any:
        """The logits."""
        return np.asarray(rows[0], np.float32)


@dataclass(frozen=True)
class OodScores:
    """Logits and inlier scores of some inputs.

    Attributes:
        scores: (n,) float32; the higher, the more of an inlier.
        percentiles: (n,) float32, the share of held-out training pictures with a lower score, in [0, 100].
        logits: (n, classes) float32.
    """

    scores: FloatArray
    percentiles: FloatArray
    logits: FloatArray


def _ood_scores(rows: tuple[Array, ...]) -> OodScores:
    return OodScores(*(np.asarray(row, np.float32) for row in rows[:3]))


@dataclass(frozen=True, eq=False)
class OodScore(Forward):
    """Logits of the inputs, as of `Forward`, with their inlier scores.

    Sent back: `OodScores`.
    """

    kind: ClassVar[Kind] = Kind("ood_score")

    def result(self, rows: tuple[Array, ...]) -> OodScores:
        """Scores and logits."""
        return _ood_scores(rows)


@dataclass(frozen=True, eq=False)
class MaskedOodScore(MaskedForward):
    """Logits of masked images, as of `MaskedForward`, with their inlier scores.

    Sent back: `OodScores`.
    """

    kind: Kind = Kind("masked_ood_score")

    def result(self, rows: tuple[Array, ...]) -> OodScores:
        """Scores and logits."""
        return _ood_scores(rows)


@dataclass(frozen=True)
class Featured:
    """The features of some inputs, (n, features), and their logits, (n, classes), both float32."""

    features: FloatArray
    logits: FloatArray


@dataclass(frozen=True, eq=False)
class Features(Forward):
    """Logits of the inputs, as of `Forward`, with their features: the inputs of the model's last dense layer.

    Sent back: `Featured`.
    """

    kind: ClassVar[Kind] = Kind("features")

    def result(self, rows: tuple[Array, ...]) -> Featured:
        """Features and logits."""
        return Featured(np.asarray(rows[0], np.float32), np.asarray(rows[1], np.float32))


INPUT_GRADIENT = Kind("input_gradient")
"""The kind of an `InputGradient` without a ReLU rule."""


@dataclass(frozen=True, eq=False)
class InputGradient:
    """Gradient of one logit of each input by that input.

    Attributes:
        inputs: (n, C, H, W) float32.
        targets: (n,) int32, the class whose logit is derived.
        relu_rule: See `Kind`.

    Sent back: the gradients, (n, C, H, W) float32.
    """

    inputs: FloatArray
    targets: IntArray
    relu_rule: str = ""

    @property
    def kind(self) -> Kind:
        """Rows of the same rule may share a batch."""
        return Kind("input_gradient", relu_rule=self.relu_rule)

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
        """Rows of the same layer may share a batch."""
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


def ood_score(inputs: FloatArray) -> Steps[OodScores]:
    """The logits and inlier scores of some inputs."""
    scores: OodScores = yield OodScore(inputs)
    return scores


def features(inputs: FloatArray) -> Steps[Featured]:
    """The features of some inputs, with their logits."""
    featured: Featured = yield Features(inputs)
    return featured


def drive(steps: Steps[T], run: Any) -> T:
    """Runs a computation outside the engine, in a script or a test.

    Args:
        steps: The computation.
        run: Called with (kind, rows); returns the result rows, as `Backend.run` does but for any number of rows.
    """
    try:
        work = next(steps)
        while True:
            sent = None if isinstance(work, Partial) else work.result(run(work.kind, work.rows))
            work = steps.send(sent)
    except StopIteration as stop:
        result: T = stop.value
        return result


def mapped(steps: Steps[T], change: Callable[[T], U]) -> Steps[U]:
    """A computation whose result, and whose partial results, are passed through a function."""
    sent = None
    try:
        while True:
            work = steps.send(sent)
            sent = yield _mapped_partial(work, change) if isinstance(work, Partial) else work
    except StopIteration as stop:
        return change(stop.value)
    finally:
        steps.close()


def _mapped_partial(partial: Partial[T], change: Callable[[T], U]) -> Partial[U]:
    return Partial(lambda: change(partial.make()))
