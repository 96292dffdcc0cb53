"""An ONNX graph in a form that is easy to change: nodes with plain attributes, and constants as arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_sidecar.engine.work import Array

if TYPE_CHECKING:
    from onnx import ModelProto

BATCH = "batch"
"""Name of the free first axis of a model's input and outputs."""

_PLAIN = frozenset({"", "ai.onnx"})
"""Names of the domain of ONNX's own operators."""


@dataclass(frozen=True)
class Node:
    """An operation.

    Attributes:
        kind: The operator: "Conv"; with its domain in front if that is not ONNX's own, "com.microsoft.Gelu".
        inputs: Names of its inputs; "" where an optional one is left out.
        outputs: Names of its outputs; "" where an optional one is left out.
        attributes: Its attributes, with lists as tuples, text as str, and tensors as arrays.
        name: What the file calls it; may be empty or not unique.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def input(self, place: int) -> str:
        """Name of an input; "" if it is left out."""
        return self.inputs[place] if place < len(self.inputs) else ""

    def renamed(self, names: Mapping[str, str]) -> Node:
        """The same with other inputs, by their names."""
        return replace(self, inputs=tuple(names.get(name, name) for name in self.inputs))


@dataclass
class Graph:
    """A graph whose nodes stand in an order in which they can run.

    Attributes:
        nodes: The operations, none of which has a subgraph.
        constants: Weights and other constants, by name.
        inputs: Names of the inputs with their shapes; None is the free batch axis.
        outputs: Names of the outputs.
        opset: Version of ONNX's operators.
        domains: Versions of other domains' operators.
    """

    nodes: list[Node]
    constants: dict[str, Array]
    inputs: dict[str, tuple[int | None, ...]]
    outputs: list[str]
    opset: int
    domains: dict[str, int] = field(default_factory=dict)
    input_dtypes: dict[str, np.dtype[Any]] = field(default_factory=dict)

    def copy(self) -> Graph:
        """A copy whose lists can be changed; nodes and arrays are shared."""
        return Graph(
            list(self.nodes),
            dict(self.constants),
            dict(self.inputs),
            list(self.outputs),
            self.opset,
            dict(self.domains),
            dict(self.input_dtypes),
        )

    def makers(self) -> dict[str, Node]:
        """The node that makes each value that is not an input or a constant, by name."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def users(self) -> dict[str, list[Node]]:
        """The nodes that use each value, by name."""
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name:
                    users.setdefault(name, []).append(node)
        return users

    def after(self, names: Iterable[str]) -> set[str]:
        """The names of values that depend on one of some values, these included."""
        found = set(names)
        for node in self.nodes:
            if not found.isdisjoint(node.inputs):
                found.update(filter(None, node.outputs))
        return found

    def before(self, names: Iterable[str]) -> set[str]:
        """The names of values that one of some values depends on, these included."""
        found = set(names)
        for node in reversed(self.nodes):
            if not found.isdisjoint(filter(None, node.outputs)):
                found.update(filter(None, node.inputs))
        return found

    def pruned(self, outputs: Iterable[str]) -> Graph:
        """The part that some outputs need."""
        wanted = list(outputs)
        needed = self.before(wanted)
        return replace(
            self.copy(),
            nodes=[node for node in self.nodes if not needed.isdisjoint(filter(None, node.outputs))],
            constants={name: value for name, value in self.constants.items() if name in needed},
            outputs=wanted,
        )

    def unused_name(self, wish: str) -> str:
        """A name that no value has, like a wish."""
        taken = {*self.constants, *self.inputs, *(name for node in self.nodes for name in node.outputs)}
        count = 0
        name = wish
        while name in taken:
            count += 1
            name = f"{wish}_{count}"
        return name


def read(model: ModelProto) -> Graph:
    """Takes a model apart.

    Args:
        model: A model whose constants are all in it: external data has been loaded. Its free axes may have any names;
            the first free axis of each input is taken for the batch.

    Raises:
        ValueError: It has subgraphs, local functions or sparse constants; the message names the node.
    """
    from onnx import numpy_helper

    if model.functions:
        raise ValueError("The model has functions of its own. Inline them with onnx.inliner.inline_local_functions.")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    if model.graph.sparse_initializer:
        raise ValueError("The model has sparse weights, which are not supported. Store them as dense ones.")
    nodes = []
    for node in map(_node, model.graph.node):
        if node.kind == "Constant":
            constants[node.outputs[0]] = _constant(node)
        else:
            nodes.append(node)
    domains = {entry.domain: entry.version for entry in model.opset_import}
    opset = next((version for domain, version in domains.items() if domain in _PLAIN), 1)
    fed = [each for each in model.graph.input if each.name not in constants]
    return Graph(
        _sorted(nodes, {*constants, *(each.name for each in fed)}),
        constants,
        {each.name: _shape(each) for each in fed},
        [each.name for each in model.graph.output],
        opset,
        {domain: version for domain, version in domains.items() if domain not in _PLAIN},
        {each.name: _dtype(each.type.tensor_type.elem_type) for each in fed},
    )


def write(graph: Graph) -> ModelProto:
    """Puts a model together that any engine loads; its types and shapes are left to be inferred."""
    from onnx import helper, numpy_helper

    inputs = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(graph.input_dtypes.get(name, np.dtype(np.float32))),
            [BATCH if axis is None else axis for axis in shape],
        )
        for name, shape in graph.inputs.items()
    ]
    made = helper.make_graph(
        [_proto(node) for node in graph.nodes],
        "classifier",
        inputs,
        [helper.make_empty_tensor_value_info(name) for name in graph.outputs],
        [
            numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
            for name, value in graph.constants.items()
        ],
    )
    imports = [helper.make_opsetid("", graph.opset), *(helper.make_opsetid(*each) for each in graph.domains.items())]
    return helper.make_model(made, opset_imports=imports, ir_version=_ir_version(graph.opset))


def _node(proto: Any) -> Node:
    attributes = {}
    for each in proto.attribute:
        value = _value(each)
        if value is _SUBGRAPH:
            raise ValueError(
                f"The operator {proto.op_type} named {proto.name!r} has a subgraph ({each.name}), which is not "
                "supported. Export the model without control flow."
            )
        attributes[each.name] = value
    kind = proto.op_type if proto.domain in _PLAIN else f"{proto.domain}.{proto.op_type}"
    return Node(kind, tuple(proto.input), tuple(proto.output), attributes, proto.name)


_SUBGRAPH = object()


def _value(attribute: Any) -> Any:
    from onnx import AttributeProto, helper, numpy_helper

    if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
        return _SUBGRAPH
    if attribute.type == AttributeProto.TENSOR:
        return numpy_helper.to_array(attribute.t)
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(each.decode() if isinstance(each, bytes) else each for each in value)
    return value


def _constant(node: Node) -> Array:
    """The value of a Constant node, whichever attribute gives it."""
    (kind, value), *_ = node.attributes.items()
    dtypes: dict[str, Any] = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64}
    if kind == "sparse_value":
        raise ValueError(
            f"The constant {node.outputs[0]!r} is sparse, which is not supported. Store it as a dense one."
        )
    return np.asarray(value, dtypes.get(kind, np.int64 if kind == "value_ints" else None))


def _proto(node: Node) -> Any:
    from onnx import helper, numpy_helper

    domain, _, kind = node.kind.rpartition(".")
    attributes = {
        name: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for name, value in node.attributes.items()
    }
    # An empty list has no type of its own; in ONNX's operators only lists of integers may be empty.
    proto = helper.make_node(kind, node.inputs, node.outputs, name=node.name, domain=domain)
    for name, value in attributes.items():
        proto.attribute.append(
            helper.make_attribute(name, value, attr_type=7 if isinstance(value, tuple) and not value else None)
        )
    return proto


def _sorted(nodes: list[Node], known: set[str]) -> list[Node]:
    """Nodes in an order in which they can run. Files have them so, as a rule.

    Raises:
        ValueError: There is a circle, or an input that nothing makes.
    """
    ordered: list[Node] = []
    waiting = nodes
    while waiting:
        left = []
        for node in waiting:
            if all(name in known for name in node.inputs if name):
                ordered.append(node)
                known.update(node.outputs)
            else:
                left.append(node)
        if len(left) == len(waiting):
            missing = next(name for name in left[0].inputs if name and name not in known)
            raise ValueError(
                f"The input {missing!r} of the operator {left[0].kind} is made by nothing. Export it anew."
            )
        waiting = left
    return ordered


def _shape(value: Any) -> tuple[int | None, ...]:
    """The shape of an input; only the first axis that is not a positive number is the batch, others stay None too."""
    return tuple(axis.dim_value if axis.dim_value > 0 else None for axis in value.type.tensor_type.shape.dim)


def _dtype(element_type: int) -> np.dtype[Any]:
    from onnx import helper

    return np.dtype(helper.tensor_dtype_to_np_dtype(element_type))


def _ir_version(opset: int) -> int:
    """The oldest version of the file format for a version of the operators, which older engines read too."""
    from onnx import helper

    return max(8, helper.find_min_ir_version_for([helper.make_opsetid("", opset)], ignore_unknown=True))


def counted(kinds: Iterable[str]) -> str:
    """Operators as an error names them, each with how often it occurs: "Foo, Bar ×3"."""
    return ", ".join(kind if count == 1 else f"{kind} ×{count}" for kind, count in Counter(kinds).items())
