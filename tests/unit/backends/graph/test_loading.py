"""Classifiers from ONNX files: what is read, what is refused and how, and what the logits are taken for."""

import numpy as np
import onnx
import pytest
import small_graphs
from onnx import TensorProto, helper, numpy_helper

from xai_sidecar.backends.graph.loaded import load, probe_inputs
from xai_sidecar.backends.graph.loading import load_file
from xai_sidecar.backends.graph.reference import Reference
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.errors import ConfigError

SHAPE = (3, small_graphs.HEIGHT, small_graphs.WIDTH)
CLASSES = 5
BODY = [
    ("Conv", ["x", "kernel"], ["maps"], {"pads": [1, 1, 1, 1]}),
    ("Relu", ["maps"], ["positive"], {}),
    ("GlobalAveragePool", ["positive"], ["means"], {}),
    ("Flatten", ["means"], ["channels"], {"axis": 1}),
    ("MatMul", ["channels", "head"], ["logits"], {}),
]
FREE = {"x": ["batch", *SHAPE]}


def content(nodes=(), inputs=None, outputs=("logits",), opset=17, **weights):
    given = {**small_graphs.convolution_weights(), **weights}
    used = {name for _, taken, _, _ in [*BODY, *nodes] for name in taken}
    given = {name: value for name, value in given.items() if name in used}
    return small_graphs.serialised([*BODY, *nodes], inputs or FREE, list(outputs), given, opset)


def expected(inputs):
    return small_graphs.convolution_by_hand(inputs)[1]


@pytest.fixture
def file(tmp_path):
    """Writes a file and loads it."""

    def file(data, taking=None, output=None, shape=SHAPE):
        path = tmp_path / "net.onnx"
        path.write_bytes(data)
        return load_file(path, taking, output, shape)

    return file


@pytest.fixture
def refused(file):
    """The field and the message of a file that is refused."""

    def refused(*given, **more):
        with pytest.raises(ConfigError) as caught:
            file(*given, **more)
        assert caught.value.message.rstrip().endswith("."), caught.value.message
        assert "\n" not in caught.value.message
        return caught.value.field, caught.value.message

    return refused


@pytest.fixture
def whole(tmp_path):
    """Writes a file and loads it with all that is found of it."""

    def whole(data, **source):
        path = tmp_path / "net.onnx"
        path.write_bytes(data)
        source = GraphSource(path, **{"height": SHAPE[1], "width": SHAPE[2], **source})
        return load(source, probe_inputs(source, 4), Reference())

    return whole


def logits_of(graph, inputs):
    return Reference()(graph, (inputs,))[0]


# ------------------------------------------------------------------------------------------------ the file


def test_what_is_no_onnx_file(refused, tmp_path):
    data = content()
    for wrong in (b"not a model\n", bytes(100), data[: len(data) // 2], data[:-1], b""):
        field, message = refused(wrong)
        assert field == "model.onnx"
        assert "net.onnx" in message
    with pytest.raises(ConfigError, match="there is no file"):
        load_file(tmp_path / "none.onnx", None, None, SHAPE)
    with pytest.raises(ConfigError, match="there is no file"):
        load_file(tmp_path, None, None, SHAPE)


@pytest.mark.parametrize("name", ["net.json", "net.textproto", "net.onnxtxt", "net"])
def test_the_name_of_a_file_says_nothing_of_its_form(name, tmp_path):
    (tmp_path / name).write_bytes(content())
    assert load_file(tmp_path / name, None, None, SHAPE).logits == "logits"
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError):
        load_file(tmp_path / name, None, None, SHAPE)


def test_a_file_that_must_not_be_read_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    path.write_bytes(content())

    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", denied)
    with pytest.raises(ConfigError, match="Permission denied"):
        load_file(path, None, None, SHAPE)


def test_weights_in_files_of_their_own(tmp_path):
    path = tmp_path / "net.onnx"
    model = onnx.load_from_string(content())
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    inputs = small_graphs.pictures(2)
    np.testing.assert_allclose(logits_of(load_file(path, None, None, SHAPE).graph, inputs), expected(inputs), atol=1e-5)
    weights = tmp_path / "weights.bin"
    data = weights.read_bytes()
    for damage in (lambda: weights.write_bytes(data[:-8]), lambda: weights.write_bytes(b""), weights.unlink):
        damage()
        with pytest.raises(ConfigError, match="other files") as caught:
            load_file(path, None, None, SHAPE)
        assert caught.value.field == "model.onnx"
        assert "\n" not in caught.value.message


def test_an_old_file_is_converted(file):
    """In version 9 Clip had attributes, and weights were inputs as well in the files of its day."""
    clip = [("Clip", ["logits"], ["clipped"], {"min": -0.1, "max": 0.1}), ("Identity", ["clipped"], ["y"], {})]
    model = onnx.load_from_string(content(clip, outputs=["y"], opset=9))
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims))
    model.ir_version = 3
    loaded = file(model.SerializeToString())
    assert loaded.graph.opset >= 11
    inputs = small_graphs.pictures(3)
    np.testing.assert_allclose(logits_of(loaded.graph, inputs), expected(inputs).clip(-0.1, 0.1), atol=1e-6)


def test_functions_are_inlined(file):
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Neg", ["b"], ["c"])]
    function = helper.make_function("own", "NegativePart", ["a"], ["c"], body, [helper.make_opsetid("", 17)])
    model = onnx.load_from_string(content(outputs=["y"], nodes=[("Identity", ["logits"], ["y"], {})]))
    model.graph.node[-1].CopyFrom(helper.make_node("NegativePart", ["logits"], ["y"], domain="own"))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    inputs = small_graphs.pictures(2)
    graph = file(model.SerializeToString()).graph
    np.testing.assert_allclose(logits_of(graph, inputs), -np.maximum(expected(inputs), 0), atol=1e-6)


@pytest.mark.parametrize("kind", ["If", "Loop"])
def test_control_flow_is_refused_by_name(kind, refused):
    made = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    inside = helper.make_graph([helper.make_node("Identity", ["logits"], ["z"])], "inside", [], [made])
    model = onnx.load_from_string(content([("Identity", ["logits"], ["y"], {})], outputs=["y"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(1), "count"))
    if kind == "If":
        node = helper.make_node("If", ["condition"], ["y"], "choice", then_branch=inside, else_branch=inside)
    else:
        node = helper.make_node("Loop", ["count", "condition"], ["y"], "choice", body=inside)
    model.graph.node[-1].CopyFrom(node)
    field, message = refused(model.SerializeToString())
    assert field == "model.onnx"
    assert f"The operator {kind} named 'choice' has a subgraph" in message


def test_an_input_that_nothing_makes_is_named(refused):
    _, message = refused(content([("Add", ["logits", "ghost"], ["y"], {})], outputs=["y"]))
    assert "'ghost' of the operator Add is made by nothing" in message


# ------------------------------------------------------------------------------------------------ inputs and outputs


def test_several_inputs(file, refused):
    inputs = {**FREE, "other": ["batch", CLASSES]}
    data = content([("Add", ["logits", "other"], ["y"], {})], inputs, ["y"])
    assert refused(data)[0] == "model.onnx_input"
    assert "'x', 'other'" in refused(data)[1]
    field, message = refused(data, taking="x")
    assert (field, "'other'" in message) == ("model.onnx", True)
    field, message = refused(data, taking="z")
    assert (field, "'x', 'other'" in message) == ("model.onnx_input", True)
    default = onnx.load_from_string(data)
    default.graph.initializer.append(numpy_helper.from_array(np.ones((1, CLASSES), np.float32), "other"))
    assert file(default.SerializeToString()).input == "x"


def test_several_outputs(file, refused):
    data = content(outputs=["channels", "logits"])
    field, message = refused(data)
    assert (field, "'channels', 'logits'" in message) == ("model.onnx_output", True)
    assert refused(data, output="x")[0] == "model.onnx_output"
    assert file(data, output="logits").graph.outputs == ["logits"]
    within = file(data, output="positive").graph
    assert within.outputs == ["positive"]
    assert [node.kind for node in within.nodes] == ["Conv", "Relu"]
    constant = content([("Neg", ["head"], ["y"], {})], outputs=["logits", "y"])
    field, message = refused(constant, output="y")
    assert (field, "does not depend on the picture" in message) == ("model.onnx_output", True)


@pytest.mark.parametrize(
    ("inputs", "shape", "field", "saying"),
    [
        (["n", 8, 12, 3], (3, 8, 12), "model.input.layout", "(any, 8, 12, 3)"),
        (["n", 3, 8, 12], (8, 12, 3), "model.input.layout", "Set model.input.layout"),
        (["n", 3, 8, 8], (3, 8, 12), "model.input.size", "(any, 3, 8, 12)"),
        (["n", 1, 8, 12], (3, 8, 12), "model.input.size", "channels"),
        (["n", 96], (3, 8, 12), "model.input.size", "(any, 96)"),
        ((np.uint8, ["n", 3, 8, 12]), (3, 8, 12), "model.onnx", "takes uint8"),
    ],
)
def test_an_input_of_another_shape(inputs, shape, field, saying, refused):
    got, message = refused(content(inputs={"x": inputs}), shape=shape)
    assert got == field
    assert saying in message


def test_channels_last(whole):
    turn = ("Transpose", ["x"], ["turned"], {"perm": [0, 3, 1, 2]})
    nodes = [turn, (BODY[0][0], ["turned", "kernel"], *BODY[0][2:]), *BODY[1:]]
    shape = {"x": ["n", *SHAPE[1:], 3]}
    data = small_graphs.serialised(nodes, shape, ["logits"], small_graphs.convolution_weights())
    loaded = whole(data, layout="nhwc")
    inputs = small_graphs.pictures(2)
    logits = logits_of(loaded.classifier.graph, inputs.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(logits, expected(inputs), atol=1e-5)
    assert loaded.found.class_count == CLASSES


# ------------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_become_float32(dtype, file):
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weights = {name: value.astype(dtype) for name, value in small_graphs.convolution_weights().items()}
    nodes = [
        ("Cast", ["logits"], ["cast"], {"to": element}),
        ("ConstantOfShape", ["one"], ["zero"], {"value": numpy_helper.from_array(np.zeros(1, dtype))}),
        ("Add", ["cast", "zero"], ["y"], {}),
    ]
    data = content(nodes, {"x": (dtype, ["n", *SHAPE])}, ["y"], one=np.array([1]), **weights)
    inputs = small_graphs.pictures(2)
    logits = logits_of(file(data).graph, inputs)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected(inputs), atol=2e-3)


def test_weights_of_half_precision_that_are_cast(file):
    """As exporters store them when only the size of the file matters."""
    kernel = small_graphs.convolution_weights()["kernel"].astype(np.float16)
    nodes = [("Cast", ["half"], ["kernel"], {"to": TensorProto.FLOAT}), *BODY]
    weights = {"half": kernel, "head": small_graphs.convolution_weights()["head"]}
    inputs = small_graphs.pictures(2)
    logits = logits_of(file(small_graphs.serialised(nodes, FREE, ["logits"], weights)).graph, inputs)
    np.testing.assert_allclose(logits, expected(inputs), atol=2e-3)


# ------------------------------------------------------------------------------------------------ logits


ENDS = {
    "softmax": ("softmax", [("Softmax", ["logits"], ["y"], {"axis": 1})]),
    "softmax, axis by default": ("softmax", [("Softmax", ["logits"], ["y"], {})]),
    "log softmax": ("softmax", [("LogSoftmax", ["logits"], ["y"], {"axis": -1})]),
    "sigmoid": ("sigmoid", [("Sigmoid", ["logits"], ["y"], {})]),
    "softmax, then others": (
        "softmax",
        [
            ("Softmax", ["logits"], ["p"], {"axis": 1}),
            ("Identity", ["p"], ["q"], {}),
            ("Reshape", ["q", "rows"], ["r"], {}),
            ("Cast", ["r"], ["y"], {"to": TensorProto.FLOAT}),
        ],
    ),
    "softmax of maps": (
        "softmax",
        [
            ("Unsqueeze", ["logits", "behind"], ["maps_of_one"], {}),
            ("Softmax", ["maps_of_one"], ["p"], {"axis": 1}),
            ("Flatten", ["p"], ["y"], {"axis": 1}),
        ],
    ),
    "nothing": ("", [("Identity", ["logits"], ["y"], {})]),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_logits_are_before_an_activation(end, file):
    activation, nodes = ENDS[end]
    loaded = file(content(nodes, outputs=["y"], rows=np.array([-1, CLASSES]), behind=np.array([2, 3])))
    assert loaded.activation == activation
    inputs = small_graphs.pictures(3)
    np.testing.assert_allclose(logits_of(loaded.graph, inputs), expected(inputs), atol=1e-5)


GATES = {
    "attention": [
        ("Softmax", ["logits"], ["weights"], {"axis": 1}),
        ("MatMul", ["weights", "values"], ["y"], {}),
    ],
    "squeeze and excite": [("Sigmoid", ["logits"], ["gate"], {}), ("Mul", ["logits", "gate"], ["y"], {})],
    "twice": [("Softmax", ["logits"], ["p"], {"axis": 1}), ("Add", ["p", "p"], ["y"], {})],
    "over pictures": [("Softmax", ["logits"], ["y"], {"axis": 0})],
}


@pytest.mark.parametrize("gate", GATES)
def test_an_activation_within_stays(gate, file):
    values = np.random.default_rng(0).standard_normal((CLASSES, CLASSES)).astype(np.float32)
    data = content(GATES[gate], outputs=["y"], values=values)
    loaded = file(data)
    assert loaded.activation == ""
    inputs = small_graphs.pictures(2)
    import onnxruntime

    right = onnxruntime.InferenceSession(data).run(None, {"x": inputs})[0]
    np.testing.assert_allclose(logits_of(loaded.graph, inputs), right, atol=1e-5)


def test_the_activation_of_the_file_is_that_of_the_config(whole):
    data = content([("Sigmoid", ["logits"], ["y"], {})], outputs=["y"])
    with pytest.raises(ConfigError, match=r"Set model\.activation = 'sigmoid'") as caught:
        whole(data)
    assert caught.value.field == "model.activation"
    loaded = whole(data, activation="sigmoid")
    assert "The sigmoid at its end is left out" in loaded.found.weights
    assert whole(content(), activation="sigmoid").found.class_count == CLASSES  # logits may be taken for either


@pytest.mark.parametrize("axes", [[2, 3], [1, 2], [2]])
def test_logits_with_axes_of_length_one_are_flattened(axes, whole):
    data = content([("Unsqueeze", ["logits", "axes"], ["y"], {})], outputs=["y"], axes=np.array(axes))
    loaded = whole(data)
    inputs = small_graphs.pictures(3)
    assert loaded.found.class_count == CLASSES
    np.testing.assert_allclose(logits_of(loaded.classifier.graph, inputs), expected(inputs), atol=1e-5)


@pytest.mark.parametrize("output", ["positive", "scalar"])
def test_an_output_that_is_no_logits_is_refused_with_its_shape(output, whole):
    data = content([("ReduceMean", ["logits"], ["scalar"], {"axes": [1], "keepdims": 0})], outputs=[output])
    with pytest.raises(ConfigError, match=r"\(n") as caught:
        whole(data)
    assert caught.value.field == "model.onnx_output"
    assert repr(output) in caught.value.message
