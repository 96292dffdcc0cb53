"""Finds the rectifiers of a graph: zero below zero, and the identity above it, up to a ceiling if they have one.

Exporters write them in several ways: as Relu, as a Clip from 0, as a maximum, as a product with a condition, and a
ceiling as a minimum before or after. But what computes the same can have another part: in x · Clip(x + 3, 0, 6) / 6, a
hard swish, and at the end of squeeze-and-excite, the Clip is a gate, which says how much of another value passes. ReLU
rules are about features, whose gradients show what a net looks for, not about gates. A rectifier is a gate if it
multiplies a value that depends on the picture but not on the rectifier. So a ReLU whose output goes both to
squeeze-and-excite and, as what is gated, to the product with its result is none: its gate is made of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from xai_sidecar.backends.graph.graph import Graph, Node, counted
from xai_sidecar.errors import PreconditionError

_CURE = "Ask for gradient or gradcam instead."

_PRODUCTS = frozenset({"Mul", "Div", "MatMul", "Gemm", "Einsum"})

_SUMS = frozenset({"Add", "Sub", "Sum"})

_CARRYING = frozenset({
    "Add", "Sub", "Mul", "Div", "Neg", "Min", "Max", "Clip", "Identity", "Cast", "CastLike", "Dropout", "Reshape",
    "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "Resize", "Upsample",
})  # fmt: skip
"""Operators through which a gate goes to what it multiplies, if only one of their inputs depends on the picture."""

_GATES = frozenset({"Sigmoid", "HardSigmoid", "Tanh", "Softmax"})
"""In a product with one of these, the other factor is what is gated."""

_CASTING = frozenset({"Identity", "Cast", "CastLike"})
"""Operators that leave each number what it is."""

_REPEATING = _CASTING | {"Expand", "Reshape"}
"""Operators that leave one number what it is."""

_BLIND = frozenset({"Shape", "Size"})
"""Operators whose output does not depend on what their input holds."""


@dataclass(frozen=True)
class Clamp:
    """A node that keeps a value between bounds, and does nothing else.

    Attributes:
        value: Name of the input with the value.
        low: What it raises lower values to.
        high: What it lowers higher values to.
    """

    value: str
    low: float
    high: float

    @property
    def is_rectifier(self) -> bool:
        """Whether it is zero below zero and the identity above, up to a ceiling."""
        return self.low == 0 < self.high

    @property
    def is_ceiling(self) -> bool:
        """Whether it makes a rectifier with a ceiling of a rectifier without one."""
        return self.low < 0 < self.high < math.inf


def find_rectifiers(graph: Graph) -> frozenset[str]:
    """The names of the outputs of a graph's rectifiers, to which the ReLU rules apply; those of their ceilings, too.

    None are: gates (see the module), parts of a hard sigmoid, and a Clip of the picture itself.

    Raises:
        PreconditionError: There are no rectifiers; the message says what there is instead.
    """
    search = _Search(graph)
    found = search.rectifiers()
    if found:
        return found
    if search.floors:
        kinds = counted(search.makers[name].kind for name in search.floors)
        raise PreconditionError(
            "The ReLU rules of guided backpropagation and deconvolution have nothing to act on: what is like a ReLU in "
            f"this model ({kinds}) is part of a hard swish or hard sigmoid, gates another value, or clips the picture. "
            + _CURE
        )
    raise PreconditionError(
        "The ReLU rules of guided backpropagation and deconvolution have nothing to act on: this model has no ReLU or "
        f"the like. {_CURE}"
    )


class Clamps:
    """Tells which nodes of a graph clamp a value.

    Args:
        graph: The graph.

    Attributes:
        makers: The nodes by their outputs.
    """

    def __init__(self, graph: Graph) -> None:
        self._constants = graph.constants
        self.makers = graph.makers()

    def of(self, node: Node) -> Clamp | None:
        """What a node keeps between which bounds; None if it does something else."""
        if node.kind == "Clip":
            low, high = (
                self.number(node.input(place)) if node.input(place) else absent
                for place, absent in ((1, -math.inf), (2, math.inf))
            )
            return None if low is None or high is None else Clamp(node.inputs[0], low, high)
        if node.kind in ("Max", "Min"):
            return self._extreme(node)
        if node.kind in ("Where", "Mul"):
            value = self._masked(node)
            return None if value is None else Clamp(value, 0, math.inf)
        return Clamp(node.inputs[0], 0, math.inf) if self._is_relu(node) else None

    def number(self, name: str) -> float | None:
        """The number that all elements of a value are, whatever its shape; None if it is none, or they differ."""
        value = self._constants.get(name)
        maker = self.makers.get(name)
        if maker is not None and maker.kind in _REPEATING:
            return self.number(maker.inputs[0])
        if maker is not None and maker.kind == "ConstantOfShape":
            value = maker.attributes.get("value", np.zeros(1))
        if value is None or value.size == 0 or value.dtype.kind not in "fiu" or (value != value.flat[0]).any():
            return None
        return float(value.flat[0])

    def _is_relu(self, node: Node) -> bool:
        """Whether it is Relu, or one of its relatives without a slope below zero."""
        if node.kind in ("LeakyRelu", "ThresholdedRelu"):
            return node.attributes.get("alpha") == 0
        return node.kind == "Relu" or (node.kind == "PRelu" and self.number(node.inputs[1]) == 0)

    def _extreme(self, node: Node) -> Clamp | None:
        if len(node.inputs) != 2:
            return None
        for value, other in (node.inputs, node.inputs[::-1]):
            bound = self.number(other)
            if bound is not None:
                return Clamp(value, bound, math.inf) if node.kind == "Max" else Clamp(value, -math.inf, bound)
        return None

    def _masked(self, node: Node) -> str | None:
        """The value that a product, or a choice between it and zero, lets through where it is positive."""
        if node.kind == "Mul":
            choices = [(mask, value, True) for value, mask in (node.inputs, node.inputs[::-1])]
        else:
            condition, yes, no = node.inputs
            choices = [(condition, yes, True)] if self.number(no) == 0 else []
            choices += [(condition, no, False)] if self.number(yes) == 0 else []
        return next((value for condition, value, wanted in choices if self._sign(condition) == (value, wanted)), None)

    def _sign(self, condition: str) -> tuple[str, bool] | None:
        """The value that a condition, or its numbers 1 and 0, compares with zero, and if it holds for positive ones."""
        node = self.makers.get(condition)
        if node is None:
            return None
        if node.kind in _CASTING:
            return self._sign(node.inputs[0])
        if node.kind == "Not":
            inner = self._sign(node.inputs[0])
            return None if inner is None else (inner[0], not inner[1])
        if node.kind not in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
            return None
        is_greater = node.kind.startswith("Greater")
        one, other = node.inputs
        if self.number(other) == 0:
            return one, is_greater
        return (other, not is_greater) if self.number(one) == 0 else None


class _Search:
    """What is a rectifier in a graph, and what looks like one.

    Attributes:
        makers: The nodes by their outputs.
        floors: What looks like a rectifier, by its output.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._users = graph.users()
        self._flowing = self._after(graph.inputs) & graph.before(graph.outputs)
        self._numbers = Clamps(graph)
        self.makers = self._numbers.makers
        clamps = {name: self._numbers.of(node) for name, node in self.makers.items()}
        self._clamps = {name: clamp for name, clamp in clamps.items() if clamp and {name, clamp.value} <= self._flowing}
        self.floors = {name: clamp for name, clamp in self._clamps.items() if clamp.is_rectifier}

    def rectifiers(self) -> frozenset[str]:
        """The outputs of the rectifiers and of their ceilings."""
        found = {name for name in self.floors if not self._is_other(name)}
        ceilings = [name for name in self._clamps if self._is_ceiling_of(name, found)]
        return frozenset(found.union(ceilings))

    def _is_ceiling_of(self, name: str, rectifiers: set[str]) -> bool:
        """Whether a value is that of a ceiling right after or before rectifiers."""
        clamp = self._clamps[name]
        if not clamp.is_ceiling:
            return False
        users = self._users.get(name, [])
        before = bool(users) and all(user.outputs[0] in rectifiers for user in users)
        return clamp.value in rectifiers or (before and name not in self._graph.outputs)

    def _is_other(self, name: str) -> bool:
        """Whether what looks like a rectifier is something else."""
        value, ceiling = self._whole(name)
        if ceiling < math.inf and (self._origin(value) in self._graph.inputs or self._is_shifted(value, ceiling / 2)):
            return True
        return self._is_gate(name, ceiling)

    def _whole(self, name: str) -> tuple[str, float]:
        """What a rectifier is of, and its ceiling: with the one that is put on it before or after."""
        floor = self.floors[name]
        ceilings = {floor.high}
        value = floor.value
        if value in self._clamps and self._clamps[value].is_ceiling:
            ceilings.add(self._clamps[value].high)
            value = self._clamps[value].value
        after = (self._clamps.get(user.outputs[0]) for user in self._users.get(name, []))
        return value, min(ceilings.union(clamp.high for clamp in after if clamp and clamp.is_ceiling))

    def _is_shifted(self, value: str, shift: float) -> bool:
        """Whether half the ceiling was added, as in a hard sigmoid."""
        maker = self.makers.get(value)
        if maker is None or maker.kind != "Add":
            return False
        return any(self._numbers.number(name) == shift for name in maker.inputs)

    def _is_gate(self, name: str, ceiling: float) -> bool:
        """Whether a value multiplies one that depends on the picture but not on itself."""
        waiting, seen = [name], {name}
        while waiting:
            carried = waiting.pop()
            for user in self._users.get(carried, []):
                others = [other for other in user.inputs if other in self._flowing and other != carried]
                if others and user.kind in _PRODUCTS:
                    made_of_it = self._after([name])
                    if any(other not in made_of_it and not self._gates(other, ceiling) for other in others):
                        return True
                elif self._carries(user, others) and user.outputs[0] not in seen:
                    seen.add(user.outputs[0])
                    waiting.append(user.outputs[0])
        return False

    def _carries(self, node: Node, others: Iterable[str]) -> bool:
        """Whether a node hands a gate on: it does little to it, or it adds up the pieces of one."""
        pieces = [self._origin(other) in self.floors for other in others]
        return node.kind in _SUMS and all(pieces) if pieces else node.kind in _CARRYING

    def _gates(self, other: str, ceiling: float) -> bool:
        """Whether the other factor is a gate by its own nature, more than something with this ceiling is."""
        origin = self._origin(other)
        maker = self.makers.get(origin)
        if maker is not None and maker.kind in _GATES:
            return True
        return ceiling == math.inf and origin in self.floors and self._whole(origin)[1] < math.inf

    def _origin(self, name: str) -> str:
        """The value of which one is a scaled, shifted or reshaped form."""
        while (maker := self.makers.get(name)) and maker.kind in _CARRYING and name not in self.floors:
            flowing = [each for each in maker.inputs if each in self._flowing]
            if len(flowing) != 1:
                break
            name = flowing[0]
        return name

    def _after(self, names: Iterable[str]) -> set[str]:
        """The values that depend on what some values hold, these included."""
        found = set(names)
        for node in self._graph.nodes:
            if node.kind not in _BLIND and not found.isdisjoint(node.inputs):
                found.update(filter(None, node.outputs))
        return found
