"""What holds of every engine that this machine has."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import save
from onnx.external_data_helper import convert_model_to_external_data
from small_graphs import convolution, convolution_by_hand, pictures, serialised

from xai_sidecar.backends.runtimes.in_parts import InParts
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.backends.runtimes.openvino import OpenVino
from xai_sidecar.backends.runtimes.program import EngineError

ENGINES = [OnnxRuntime(), OpenVino(), InParts(OnnxRuntime(calls=2), 2), InParts(OpenVino(calls=3), 3)]


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request):
    return request.param


@pytest.mark.parametrize("batch_size", [None, 3])
def test_the_answer_worked_out_by_hand(engine, batch_size):
    program = engine.load(convolution(), batch_size=batch_size)
    assert (program.inputs, program.outputs) == (("pictures",), ("channels", "logits"))
    outputs = program((pictures(3),))
    for output, expected in zip(outputs, convolution_by_hand(pictures(3)), strict=True):
        assert output.dtype == np.float32
        np.testing.assert_allclose(output, expected, atol=1e-5)


def test_any_number_of_rows(engine):
    program = engine.load(convolution())
    for count in (1, 4, 2):
        np.testing.assert_allclose(program((pictures(count),))[1], convolution_by_hand(pictures(count))[1], atol=1e-5)


def test_outputs_are_the_callers_own(engine):
    program = engine.load(convolution())
    _, first = program((pictures(2),))
    kept = first.copy()
    program((pictures(2) + 1,))
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    np.testing.assert_array_equal(program((pictures(2),))[1], kept)


def test_an_output_that_is_an_input_is_the_callers_own_too(engine):
    same = serialised([("Identity", ["x"], ["y"], {})], {"x": ["batch", 4]}, ["y"])
    rows = np.ones((2, 4), np.float32)
    (output,) = engine.load(same)((rows,))
    output[:] = 7
    assert (rows == 1).all()


def test_outputs_have_the_graphs_names_in_its_order(engine):
    """Also where an engine makes one of two values: of a copy and what it copies, of twice the same."""
    model = serialised(
        [
            ("Identity", ["x"], ["same"], {}),
            ("Relu", ["x"], ["positive"], {}),
            ("Identity", ["positive"], ["copy"], {}),
            ("Relu", ["x"], ["again"], {}),
        ],
        {"x": ["batch", 4]},
        ["again", "copy", "same", "positive"],
    )
    program = engine.load(model)
    assert program.outputs == ("again", "copy", "same", "positive")
    rows = np.array([[-1, 2, -3, 4]], np.float32)
    again, copy, same, positive = program((rows,))
    np.testing.assert_array_equal(same, rows)
    for output in (again, copy, positive):
        np.testing.assert_array_equal(output, [[0, 2, 0, 4]])


def test_calls_at_once_do_not_mix(engine):
    program = engine.load(convolution(), threads=1)
    inputs = [pictures(2, seed) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda rows: program((rows,))[1], inputs * 4))
    for output, rows in zip(results, inputs * 4, strict=True):
        np.testing.assert_allclose(output, convolution_by_hand(rows)[1], atol=1e-5)


def test_a_program_for_one_batch_size_is_right_or_refuses(engine):
    program = engine.load(convolution(), batch_size=2)
    try:
        _, logits = program((pictures(3),))
    except Exception:
        return
    np.testing.assert_allclose(logits, convolution_by_hand(pictures(3))[1], atol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_lower_precision_is_used_or_refused(engine, precision):
    if precision not in engine.precisions:
        with pytest.raises(EngineError, match=precision):
            engine.load(convolution(), precision=precision)
        return
    (_, logits), (_, expected) = (
        engine.load(convolution(), precision=precision)((pictures(4),)),
        convolution_by_hand(pictures(4)),
    )
    assert logits.dtype == np.float32
    error = np.abs(logits - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 3e-2  # rounded, to 8 or 11 bits


def test_inputs_may_be_any_view_of_any_size_of_float(engine):
    program = engine.load(convolution())
    inputs = pictures(4)
    np.testing.assert_array_equal(program((inputs[::2],))[0], program((inputs[::2].copy(),))[0])
    repeated = np.broadcast_to(inputs[:1], inputs.shape)
    np.testing.assert_array_equal(program((repeated,))[0], program((repeated.copy(),))[0])
    np.testing.assert_array_equal(program((inputs.astype(np.float64),))[0], program((inputs,))[0])


def test_integers_are_no_pictures(engine):
    with pytest.raises(TypeError, match="float32"):
        engine.load(convolution())((pictures(1).astype(np.int32),))


def test_several_inputs_come_in_the_graphs_order(engine):
    model = serialised(
        [
            ("Cast", ["targets"], ["floats"], {"to": 1}),
            ("Sub", ["seeds", "floats"], ["difference"], {}),
        ],
        {"seeds": ["batch", 4], "targets": (np.int32, ["batch", 1])},
        ["difference"],
    )
    program = engine.load(model)
    seeds, targets = np.arange(8, dtype=np.float32).reshape(2, 4), np.array([[1], [2]], np.int32)
    np.testing.assert_array_equal(program((seeds, targets))[0], seeds - targets)
    np.testing.assert_array_equal(program((seeds, targets.astype(np.int64), seeds))[0], seeds - targets)
    with pytest.raises(Exception, match=r"."):
        program((seeds,))


def test_integers_and_truth_come_out_as_they_are(engine):
    model = serialised(
        [
            ("ArgMax", ["x"], ["best"], {"axis": 1, "keepdims": 0}),
            ("Greater", ["x", "zero"], ["positive"], {}),
        ],
        {"x": ["batch", 4]},
        ["best", "positive"],
        {"zero": np.float32(0)},
    )
    best, positive = engine.load(model)((np.array([[0, -3, 9, 1]], np.float32),))
    assert best.tolist() == [2]
    assert best.dtype == np.int64
    assert positive.dtype == np.bool_
    assert positive.tolist() == [[False, False, True, True]]


def test_half_of_a_float_goes_in_and_comes_out_as_float32(engine):
    half = np.array([[1, 2, 3, 4]], np.float16)
    model = serialised([("Add", ["x", "bias"], ["y"], {})], {"x": (np.float16, ["batch", 4])}, ["y"], {"bias": half})
    (output,) = engine.load(model)((np.ones((3, 4), np.float32),))
    assert output.dtype == np.float32
    np.testing.assert_array_equal(output, np.tile(half.astype(np.float32) + 1, (3, 1)))


def test_weights_may_lie_beside_the_model(engine, tmp_path):
    import onnx

    model = onnx.load_from_string(convolution())
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    save(model, tmp_path / "model.onnx")
    assert (tmp_path / "weights.bin").stat().st_size > 0
    program = engine.load(tmp_path / "model.onnx")
    np.testing.assert_allclose(program((pictures(2),))[1], convolution_by_hand(pictures(2))[1], atol=1e-5)


@pytest.mark.parametrize("model", [b"no model", b""])
def test_what_is_no_model_is_refused_in_one_line(engine, model, capfd):
    with pytest.raises(EngineError) as caught:
        engine.load(model)
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_there_is_not_is_named(engine):
    with pytest.raises(EngineError, match="Frobnicate"):
        engine.load(serialised([("Frobnicate", ["x"], ["y"], {})], {"x": ["batch", 4]}, ["y"]))


def test_a_path_that_is_not_there_is_refused(engine, tmp_path):
    with pytest.raises(EngineError, match="absent"):
        engine.load(tmp_path / "absent.onnx")
