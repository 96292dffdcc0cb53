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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xai_sidecar.backends.graph.graph import Graph, Node, counted
from xai_sidecar.engine.work import Array
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


def clamp_of(node: Node, constants: Mapping[str, Array], makers: Mapping[str, Node]) -> Clamp | None:
    """What a node keeps between which bounds; None if it does something else.

    Args:
        node: The node.
        constants: Those of its graph.
        makers: The nodes of its graph by their outputs.
    """
    if node.kind == "Clip":
        low, high = (_bound(node.input(1), -math.inf, constants), _bound(node.input(2), math.inf, constants))
        return None if low is None or high is None else Clamp(node.inputs[0], low, high)
    if node.kind in ("Max", "Min"):
        return _extreme(node, constants)
    if node.kind in ("Where", "Mul"):
        value = _masked(node, constants, makers)
        return None if value is None else Clamp(value, 0, math.inf)
    return Clamp(node.inputs[0], 0, math.inf) if _is_relu(node, constants) else None


def _is_relu(node: Node, constants: Mapping[str, Array]) -> bool:
    """Whether it is Relu, or one of its relatives without a slope below zero."""
    if node.kind in ("LeakyRelu", "ThresholdedRelu"):
        return node.attributes.get("alpha") == 0
    return node.kind == "Relu" or (node.kind == "PRelu" and _uniform(node.inputs[1], constants) == 0)


def _extreme(node: Node, constants: Mapping[str, Array]) -> Clamp | None:
    if len(node.inputs) != 2:
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        bound = _uniform(other, constants)
        if bound is not None:
            return Clamp(value, bound, math.inf) if node.kind == "Max" else Clamp(value, -math.inf, bound)
    return None


def _masked(node: Node, constants: Mapping[str, Array], makers: Mapping[str, Node]) -> str | None:
    """The value that a product, or a choice between it and zero, lets through where it is positive."""
    if node.kind == "Mul":
        choices = [(mask, value, True) for value, mask in (node.inputs, node.inputs[::-1])]
    else:
        condition, yes, no = node.inputs
        choices = [(condition, yes, True)] if _uniform(no, constants) == 0 else []
        choices += [(condition, no, False)] if _uniform(yes, constants) == 0 else []
    for condition, value, wanted in choices:
        if node.kind == "Mul":
            cast = makers.get(condition)
            if cast is None or cast.kind not in ("Cast", "CastLike"):
                continue
            condition = cast.inputs[0]
        if _sign(condition, constants, makers) == (value, wanted):
            return value
    return None


def _sign(condition: str, constants: Mapping[str, Array], makers: Mapping[str, Node]) -> tuple[str, bool] | None:
    """The value that a condition compares with zero, and whether it holds for positive ones."""
    node = makers.get(condition)
    if node is None:
        return None
    if node.kind == "Not":
        inner = _sign(node.inputs[0], constants, makers)
        return None if inner is None else (inner[0], not inner[1])
    if node.kind not in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
        return None
    is_greater = node.kind.startswith("Greater")
    if _uniform(node.inputs[1], constants) == 0:
        return node.inputs[0], is_greater
    return (node.inputs[1], not is_greater) if _uniform(node.inputs[0], constants) == 0 else None


def _bound(name: str, absent: float, constants: Mapping[str, Array]) -> float | None:
    return _uniform(name, constants) if name else absent


def _uniform(name: str, constants: Mapping[str, Array]) -> float | None:
    """The number that all elements of a constant are; None if it is none, or they differ."""
    value = constants.get(name)
    if value is None or value.size == 0 or value.dtype.kind not in "fiu" or (value != value.flat[0]).any():
        return None
    return float(value.flat[0])


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
        self.makers = graph.makers()
        clamps = {name: clamp_of(node, graph.constants, self.makers) for name, node in self.makers.items()}
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
        return any(_uniform(name, self._graph.constants) == shift for name in maker.inputs)

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
