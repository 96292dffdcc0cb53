"""Graphs taken apart and put together, and the version of what they compute."""

import numpy as np
import onnx
import pytest
import small_graphs
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from xai_sidecar.backends.graph.graph import Graph, Node, counted, read, write
from xai_sidecar.backends.graph.version import graph_version


def model():
    return onnx.load_from_string(small_graphs.convolution())


def outputs_of(proto, inputs):
    return ReferenceEvaluator(proto).run(None, {proto.graph.input[0].name: inputs})


def test_what_is_read_and_written_again_computes_the_same():
    inputs = small_graphs.pictures(2)
    graph = read(model())
    again = write(graph)
    for one, other in zip(outputs_of(again, inputs), small_graphs.convolution_by_hand(inputs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert read(again).nodes == graph.nodes
    assert graph.inputs == {"pictures": (None, 3, 8, 12)}


def test_nodes_in_any_order_and_what_is_missing():
    proto = model()
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    assert [node.kind for node in read(proto).nodes] == [node.op_type for node in nodes]
    proto.graph.node[0].input[1] = "ghost"
    with pytest.raises(ValueError, match="'ghost' of the operator MatMul is made by nothing"):
        read(proto)
    proto.graph.node[0].input[1] = "logits"  # a circle
    with pytest.raises(ValueError, match="'logits' of the operator MatMul"):
        read(proto)


CONSTANTS = {
    "value": (numpy_helper.from_array(np.array([[1.5]], np.float16)), np.array([[1.5]], np.float16)),
    "value_float": (0.5, np.array(0.5, np.float32)),
    "value_floats": ([0.5, 2.0], np.array([0.5, 2], np.float32)),
    "value_int": (3, np.array(3)),
    "value_ints": ([3, 4], np.array([3, 4])),
}


@pytest.mark.parametrize("attribute", CONSTANTS)
def test_constants_in_all_their_forms(attribute):
    value, expected = CONSTANTS[attribute]
    proto = model()
    proto.graph.node.append(helper.make_node("Constant", [], ["c"], **{attribute: value}))
    found = read(proto).constants["c"]
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)


def test_sparse_weights_and_functions_are_refused():
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [2]),
        [4],
    )
    proto = model()
    proto.graph.sparse_initializer.append(sparse)
    with pytest.raises(ValueError, match="sparse weights"):
        read(proto)
    proto = model()
    proto.graph.node.append(helper.make_node("Constant", [], ["c"], sparse_value=sparse))
    with pytest.raises(ValueError, match="'c' is sparse"):
        read(proto)
    proto = model()
    proto.functions.append(helper.make_function("own", "F", ["a"], ["a"], [], []))
    with pytest.raises(ValueError, match="functions of its own"):
        read(proto)


def test_operators_of_other_domains_keep_them():
    proto = model()
    proto.graph.node.append(helper.make_node("Gelu", ["logits"], ["y"], domain="com.microsoft"))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    graph = read(proto)
    assert graph.nodes[-1].kind == "com.microsoft.Gelu"
    again = write(graph)
    assert (again.graph.node[-1].op_type, again.graph.node[-1].domain) == ("Gelu", "com.microsoft")
    assert {(each.domain, each.version) for each in again.opset_import} == {("", 17), ("com.microsoft", 1)}


def chain():
    """The ways x → a → b → y and x → c → y."""
    nodes = [
        Node("Relu", ("x",), ("a",)),
        Node("Neg", ("a",), ("b",)),
        Node("Abs", ("x",), ("c",)),
        Node("Add", ("b", "c"), ("y",)),
    ]
    return Graph(nodes, {"k": np.ones(1)}, {"x": (None, 2)}, ["y"], 17)


def test_what_depends_on_what():
    graph = chain()
    assert graph.after(["a"]) == {"a", "b", "y"}
    assert graph.before(["b"]) == {"b", "a", "x"}
    assert [node.kind for node in graph.users()["x"]] == ["Relu", "Abs"]
    assert graph.makers()["y"].kind == "Add"
    assert [node.kind for node in graph.pruned(["b"]).nodes] == ["Relu", "Neg"]
    assert graph.pruned(["b"]).constants == {}
    assert [graph.unused_name(wish) for wish in ("z", "x", "a", "k")] == ["z", "x_1", "a_1", "k_1"]
    assert counted(["Foo", "Bar", "Foo"]) == "Foo ×2, Bar"


def test_a_copy_can_be_changed():
    graph = chain()
    copy = graph.copy()
    copy.nodes.clear()
    copy.constants.clear()
    copy.outputs.append("a")
    copy.inputs["z"] = (1,)
    assert (len(graph.nodes), list(graph.constants), graph.outputs, list(graph.inputs)) == (4, ["k"], ["y"], ["x"])


# ------------------------------------------------------------------------------------------------ the version


def renamed(proto):
    """The same with every value and node called otherwise."""
    names = {}

    def other(name):
        return names.setdefault(name, f"value {len(names)}") if name else ""

    for node in proto.graph.node:
        node.input[:] = map(other, node.input)
        node.output[:] = map(other, node.output)
        node.name = "n"
    for each in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        each.name = other(each.name)
    return proto


def version(proto, *parts):
    return graph_version(read(proto), *parts)


def test_names_and_the_way_of_storing_are_nothing_to_the_version():
    assert version(renamed(model())) == version(model())
    again = write(read(model()))
    assert version(again) == version(model())
    as_node = model()
    tensor = as_node.graph.initializer.pop(0)
    as_node.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    assert version(as_node) == version(model())
    documented = model()
    documented.producer_name, documented.doc_string = "somebody", "something"
    assert version(documented) == version(model())


def one_weight(proto):
    weight = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    weight.reshape(-1)[7] = np.nextafter(weight.reshape(-1)[7], np.float32(1))
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, proto.graph.initializer[0].name))


def its_precision(proto):
    weight = numpy_helper.to_array(proto.graph.initializer[0]).astype(np.float64)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, proto.graph.initializer[0].name))


CHANGES = {
    "a weight": one_weight,
    "a weight's precision": its_precision,
    "an attribute": lambda proto: proto.graph.node[0].attribute[0].ints.__setitem__(0, 2),
    "an attribute more": lambda proto: proto.graph.node[0].attribute.append(helper.make_attribute("group", 1)),
    "an operator": lambda proto: setattr(proto.graph.node[1], "op_type", "Abs"),
    "an input": lambda proto: proto.graph.node[1].input.__setitem__(0, "pictures"),
    "the outputs": lambda proto: proto.graph.output.pop(0),
    "the operators' version": lambda proto: setattr(proto.opset_import[0], "version", 18),
}


@pytest.mark.parametrize("change", CHANGES)
def test_all_that_is_computed_counts(change):
    proto = model()
    CHANGES[change](proto)
    assert version(proto) != version(model())


def test_the_preparation_counts():
    versions = {version(model()), version(model(), "nchw"), version(model(), "nhwc"), version(model(), "nchw", (3, 8))}
    assert len(versions) == 4
