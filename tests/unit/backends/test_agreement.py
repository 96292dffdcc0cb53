"""What counts as the same results."""

import numpy as np
import pytest
from small_graphs import convolution, elementwise, pictures, serialised

from xai_sidecar.backends.runtimes.agreement import disagreement, passes_nan, relative_errors
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.backends.runtimes.openvino import OpenVino

NAN, INF = np.nan, np.inf


def compared(output, expected, tolerance=1e-3):
    arrays = (np.array(array, np.float32) for array in (output, expected))
    output, expected = ((array,) for array in arrays)
    return disagreement(output, expected, [tolerance], ["logits"])


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ([[3, 4]], [[3, 4]]),
        ([[3, 4.004]], [[3, 4]]),  # off by 0.004 of 5: 0.0008
        ([[0, 0], [3, 4]], [[0, 0], [3, 4]]),
        ([[NAN, 4], [3, INF], [3, -INF]], [[NAN, 4], [3, INF], [3, -INF]]),
        ([[NAN, NAN]], [[NAN, NAN]]),
    ],
)
def test_what_agrees(output, expected):
    assert compared(output, expected) is None


@pytest.mark.parametrize(
    ("output", "expected", "how"),
    [
        ([[3, 4.01]], [[3, 4]], "differs from the reference by 2 times what rounding explains, in row 0 of logits"),
        ([[3, 4], [4, 3]], [[3, 4], [3, 4]], "in row 1 of logits"),
        ([[300, 400], [3, 4.01]], [[300, 400], [3, 4]], "by 2 times what rounding explains, in row 1"),
        ([[1e-9, 0]], [[0, 0]], "in row 0"),
        ([[NAN, 4]], [[3, 4]], "in where it has NaN or infinity, in row 0 of logits"),
        ([[3, 4]], [[NAN, 4]], "NaN or infinity"),  # swallowed
        ([[NAN, 5]], [[NAN, 4]], "what rounding explains"),
        ([[INF, 4]], [[-INF, 4]], "NaN or infinity"),
        ([[NAN, 4]], [[INF, 4]], "NaN or infinity"),
        ([[NAN, 3]], [[3, NAN]], "NaN or infinity"),
        ([[3, 4, 5]], [[3, 4]], r"gave shape \(1, 3\), not \(1, 2\), for logits"),
        ([[3, 4], [3, 4]], [[3, 4]], r"gave shape \(2, 2\)"),
    ],
)
def test_what_does_not_agree_is_told(output, expected, how):
    with pytest.raises(AssertionError, match=how):
        told = compared(output, expected)
        assert told is None, told


def test_each_array_has_its_tolerance_and_its_name():
    right = np.array([[3, 4]], np.float32)
    wrong = np.array([[3, 4.01]], np.float32)
    assert disagreement((wrong, right), (right, right), [0.02, 0.001]) is None
    assert disagreement((wrong, right), (right, right), [0.001, 0.02], ["maps", "logits"]).endswith("in row 0 of maps")
    assert disagreement((right, wrong), (right, right), [0.02, 0.001]).endswith("in row 0 of output 2")
    assert disagreement((right,), (right, right), [0.02, 0.001]) == "gave 1 arrays, not 2"


def test_numbers_that_are_no_floats_are_compared_too():
    best = np.array([[3], [7]])
    assert disagreement((best,), (best.copy(),), [0.001]) is None
    assert "row 1" in disagreement((best,), (np.array([[3], [8]]),), [0.001])


def test_errors_by_row():
    errors = relative_errors(np.array([[3, 4.5], [0, 0], [NAN, 1], [1, 0]]), np.array([[3, 4], [0, 0], [1, 1], [0, 0]]))
    np.testing.assert_allclose(errors, [0.1, 0, NAN, INF])


def test_who_swallows_nan():
    rows = (pictures(3),)
    assert passes_nan(OnnxRuntime().load(convolution()), rows)
    assert not passes_nan(OpenVino().load(convolution()), rows)
    assert np.isfinite(rows[0]).all()  # the caller's stay good
    zeros = (np.zeros((2, 4), np.float32),)
    for engine in (OnnxRuntime(), OpenVino()):
        assert passes_nan(engine.load(elementwise("Sigmoid")), zeros)
    targets = serialised(
        [("Cast", ["t"], ["f"], {"to": 1}), ("Add", ["x", "f"], ["y"], {})],
        {"x": ["batch", 4], "t": (np.int64, ["batch", 1])},
        ["y"],
    )
    assert passes_nan(OnnxRuntime().load(targets), (*zeros, np.array([[1], [2]])))
