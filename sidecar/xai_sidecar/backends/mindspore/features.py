"""The features of a net, that is, the inputs of its last layer, with its logits from the same pass.

The net's own cells are never touched: everything happens on copies that share its weights.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xai_sidecar.backends.mindspore.loading import error_line
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.surgery import copy_plain_attributes, shared_copy
from xai_sidecar.engine.work import Array
from xai_sidecar.errors import PreconditionError

_CURE = (
    "Give its cell the attributes num_features (how many there are) and output_features (False; construct returns the "
    "features, (n, num_features), in place of the logits where it is True)."
)

_TOLERANCE = 1e-4
"""Tolerance of features computed in two ways: norm of the difference over norm. Rounding makes some 1e-6."""


def features_net(net: nn.Cell, example: Array, class_count: int) -> nn.Cell:
    """Makes a cell that computes the features of inputs and their logits.

    A net that declares `num_features` and `output_features`, as MindSpore XAI expects, computes its features itself.
    Of any other net they are the input of the last dense layer, or, if a convolution makes the logits as in SqueezeNet,
    the input of that convolution averaged over positions.

    Args:
        net: The net. Neither it nor its parameters are changed, whatever happens.
        example: One input as the net takes it, (1, …) float32.
        class_count: Number of logits.

    Returns:
        A cell for inference, on the net's weights: inputs (n, …) float32 → features (n, features), logits
        (n, classes). It can be compiled and exported. Only where something follows the last layer, a scaling of the
        logits, say, are there two passes in it, of which compilers merge what they recognise as common.

    Raises:
        PreconditionError: This net has no features that can be computed.
    """
    copy = shared_copy(net)
    seen = _trace(copy, example, class_count)
    if hasattr(net, "num_features") and isinstance(getattr(net, "output_features", None), bool):
        return _declared(copy, seen, example)
    for last in reversed(seen.candidates):
        found = _split(copy, last, seen, example)
        if found is not None:
            return found
    raise PreconditionError(
        f"This net cannot have an OoD net: no dense layer or convolution of it with {class_count} outputs was found "
        f"to make the logits. {_CURE}"
    )


@dataclass(frozen=True)
class _Last:
    """A candidate for the last cell with weights, with its input and output for the example."""

    name: str
    cell: nn.Cell
    input: Array
    output: Array

    @property
    def features(self) -> Array:
        """The input averaged over positions, (1, features)."""
        # Channels come second in the pictures that convolutions take, and last in all that dense layers take.
        positions = tuple(range(2, self.input.ndim) if _is_convolution(self.cell) else range(1, self.input.ndim - 1))
        return np.asarray(self.input.mean(axis=positions))


@dataclass
class _Seen:
    """The record of a pass: the net's logits, and the cells that may make them, in the order in which they finish."""

    logits: Array
    candidates: list[_Last] = field(default_factory=list)


class _Features(nn.Cell):
    """Computes features, and from them the logits by the last layer."""

    def __init__(self, body: nn.Cell, last: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.body = body
        self.last = last

    def construct(self, inputs: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        features = self.body(inputs)
        return features, self.last(features)


class _FeaturesBeside(nn.Cell):
    """Computes features, and separately the logits by the whole net."""

    def __init__(self, body: nn.Cell, net: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.body = body
        self.net = net

    def construct(self, inputs: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        return self.body(inputs), self.net(inputs)


class _PassThrough(nn.Cell):
    """Replaces a layer by the identity; has the layer's plain attributes, which nets read."""

    def __init__(self, layer: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        copy_plain_attributes(layer, self)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return x


class _Constant(_PassThrough):
    """Replaces a layer by a constant output."""

    def __init__(self, layer: nn.Cell, value: Array) -> None:
        super().__init__(layer)
        self.value = ms.Tensor(value)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.value


def _trace(copy: nn.Cell, example: Array, class_count: int) -> _Seen:
    """Records one uncompiled pass through a copy of the net."""
    cells = [(name, cell) for name, cell in copy.cells_and_names() if _outputs(cell) == class_count]
    records: list[_Last] = []
    hooks = [cell.register_forward_hook(_recorder(name, records)) for name, cell in cells]
    try:
        logits = copy(ms.Tensor(example)).asnumpy()
    finally:
        for hook in hooks:
            hook.remove()
    calls = Counter(record.name for record in records)
    return _Seen(logits, [record for record in records if calls[record.name] == 1])


def _recorder(name: str, records: list[_Last]) -> Any:
    def record(cell: nn.Cell, inputs: Any, output: Any) -> None:
        if len(inputs) == 1:
            records.append(_Last(name, cell, inputs[0].asnumpy(), output.asnumpy()))

    return record


def _outputs(cell: nn.Cell) -> int:
    """Number of outputs of a dense layer or a convolution; 0 for other cells."""
    if isinstance(cell, ms.mint.nn.Linear):
        return int(cell.out_features)
    return int(cell.out_channels) if isinstance(cell, nn.Dense) or _is_convolution(cell) else 0


def _is_convolution(cell: nn.Cell) -> bool:
    return isinstance(cell, (nn.Conv2d, ms.mint.nn.Conv2d))


def _declared(copy: nn.Cell, seen: _Seen, example: Array) -> nn.Cell:
    """The features as the net itself declares them."""
    body = shared_copy(copy)
    body.output_features = True
    count = body.num_features
    try:
        output = body(ms.Tensor(example))
        features = output.asnumpy() if isinstance(output, ms.Tensor) else None
    except Exception as error:
        raise PreconditionError(
            f"This net cannot have an OoD net: with output_features set it raised {error_line(error)}. {_CURE}"
        ) from error
    if features is None or features.shape != (1, count):
        got = type(output).__name__ if features is None else f"shape {features.shape}"
        raise PreconditionError(
            f"This net cannot have an OoD net: it declares num_features = {count!r}, and with output_features set it "
            f"returned {got} for one input, not (1, {count!r}). {_CURE}"
        )
    for last in reversed(seen.candidates):
        if not _is_convolution(last.cell) and _close(last.input, features) and _is_the_end(copy, last, seen, example):
            return _Features(body, shared_copy(last.cell)).set_train(False)
    return _FeaturesBeside(body, copy).set_train(False)


def _split(copy: nn.Cell, last: _Last, seen: _Seen, example: Array) -> nn.Cell | None:
    """Cuts the net in front of a layer to compute features; None if that does not work there."""
    # Where the layer stood, nothing happens. So what comes out in the end is what went into the layer, if all that
    # follows is averaging and scaling; the averaging is wanted, and to an angle a scale is nothing.
    body = shared_copy(copy, {last.cell: _PassThrough(last.cell)})
    try:
        features = body(ms.Tensor(example)).asnumpy()
    except Exception:  # what follows wants as many numbers as there are classes, say
        return None
    if not _parallel(features, last.features):
        return None
    if not _is_convolution(last.cell) and _close(last.input, features) and _is_the_end(copy, last, seen, example):
        return _Features(body, shared_copy(last.cell)).set_train(False)
    return _FeaturesBeside(body, copy).set_train(False)


def _is_the_end(copy: nn.Cell, last: _Last, seen: _Seen, example: Array) -> bool:
    """Whether a layer's outputs are the logits unchanged: for the example, and also when they are far larger."""
    if not _close(last.output, seen.logits):
        return False
    other = (1e4 * np.random.default_rng(1).standard_normal(seen.logits.shape)).astype(np.float32)
    try:
        output = shared_copy(copy, {last.cell: _Constant(last.cell, other)})(ms.Tensor(example)).asnumpy()
    except Exception:
        return False
    return bool(np.array_equal(output, other))


def _parallel(one: Array, other: Array) -> bool:
    """Whether two rows have the same direction."""
    if one.shape != other.shape or not np.any(one) or not np.any(other):
        return False
    return _close(one / np.linalg.norm(one), other / np.linalg.norm(other))


def _close(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    return bool(np.linalg.norm(one - other) <= _TOLERANCE * np.linalg.norm(other))
