"""One program computes the input gradient by all ReLU rules, wherever one graph can."""

import gc
import time
from dataclasses import replace

import numpy as np
import onnx
import pytest
from small_graphs import HEIGHT, WIDTH, convolution, convolution_weights, pictures

from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.runtimes.onnxruntime import OnnxProgram
from xai_sidecar.backends.runtimes.openvino import OpenVinoProgram
from xai_sidecar.engine.work import Forward, Kind

RULES = ("", "guided", "deconvolution")
GRADIENTS = [Kind("input_gradient", relu_rule=rule) for rule in RULES]
TARGETS = np.array([3, 1], np.int32)


@pytest.fixture
def source(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(convolution())
    return GraphSource(
        model,
        output="logits",
        height=HEIGHT,
        width=WIDTH,
        batch_sizes=(1, 2),
        gradient_batch_sizes=(1, 2),
        cache=tmp_path / "cache",
    )


def with_maximum(path):
    """Writes the ReLU as a maximum, whose own derivative no rule's inputs choose."""
    model = onnx.load(path)
    (relu,) = (node for node in model.graph.node if node.op_type == "Relu")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((), np.float32), "zero"))
    relu.op_type, relu.input[:] = "Max", [*relu.input, "zero"]
    onnx.save(model, path)


def started(source):
    backend = GraphBackend(source)
    assert backend.warm_up([Forward.kind, *GRADIENTS], lambda line: None) == {}
    return backend


def by_hand(rule):
    """The gradients of `convolution` for two pictures: each position sends back what the rule lets through."""
    weights, inputs = convolution_weights(), pictures(2)
    padded = np.pad(inputs, ((0, 0), (0, 0), (1, 1), (1, 1)))
    back = np.zeros_like(padded, np.float64)
    for picture, target in enumerate(TARGETS):
        for channel, kernel in enumerate(weights["kernel"]):
            sent = weights["head"][channel, target] / (HEIGHT * WIDTH)
            for row in range(HEIGHT):
                for column in range(WIDTH):
                    window = np.s_[picture, :, row : row + 3, column : column + 3]
                    is_positive = (padded[window] * kernel).sum() > 0
                    if (is_positive or rule == "deconvolution") and (sent > 0 or not rule):
                        back[window] += kernel * sent
    return back[:, :, 1:-1, 1:-1]


def check(backend):
    for kind in GRADIENTS:
        expected = by_hand(kind.relu_rule)
        for count in (1, 2):
            gradients, _ = backend.run(kind, (pictures(2)[:count], TARGETS[:count]))
            np.testing.assert_allclose(gradients, expected[:count], atol=1e-6, err_msg=kind.relu_rule)


def of_gradients():
    """Programs in memory that compute gradients."""
    gc.collect()
    programs = [each for each in gc.get_objects() if isinstance(each, (OnnxProgram, OpenVinoProgram))]
    return [program for program in programs if len(program.inputs) > 1]


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_the_rules_by_hand_with_one_program_at_a_first_start_and_a_later_one(source, engine):
    source = replace(source, forward_engine=engine)
    for _ in ("first", "later"):
        backend = started(source)
        check(backend)
        serving = {id(chosen.program) for chosen in backend._programs[GRADIENTS[0]].choice.by_size.values()}
        assert len(of_gradients()) == len(serving)
        backend.close()
        del backend


def test_a_rectifier_with_another_derivative_has_a_program_for_each_rule(source):
    with_maximum(source.path)
    backend = started(source)
    check(backend)
    assert len({id(backend._programs[kind].choice) for kind in GRADIENTS}) == len(GRADIENTS)


def test_a_program_that_is_wrong_by_one_rule_alone_does_not_run_that(source, monkeypatch):
    right, fast = OpenVinoProgram.__call__, OnnxProgram.__call__

    def wrong_by_deconvolution(self, rows):
        outputs = right(self, rows)
        if len(rows) > 2 and rows[2][0, 0] < 0:
            outputs[0][-1] *= 1.1
        return outputs

    def slow(self, rows):
        time.sleep(0.05)
        return fast(self, rows)

    monkeypatch.setattr(OpenVinoProgram, "__call__", wrong_by_deconvolution)
    monkeypatch.setattr(OnnxProgram, "__call__", slow)
    for _ in ("first", "later"):
        backend = started(source)
        check(backend)
        engines = {kind.relu_rule: backend._programs[kind].choice.engine.split()[0] for kind in GRADIENTS}
        assert engines == {"": "openvino", "guided": "openvino", "deconvolution": "onnxruntime"}
