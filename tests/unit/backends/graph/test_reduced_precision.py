"""Passes in a precision below float32: run where an engine has it and gains by it, refused where not."""

import time
from dataclasses import replace

import numpy as np
import pytest
from small_graphs import HEIGHT, WIDTH, convolution, convolution_by_hand, pictures

from xai_sidecar.backends.graph import backend as graph_backend
from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.engine.work import INPUT_GRADIENT, Features, Forward, MaskedForward

BFLOAT16 = replace(MaskedForward.kind, precision="bfloat16")


class Halving:
    """An engine that computes in float32, and rounds to bfloat16's 8 bits where it is asked for that.

    Args:
        slow: The seconds that a call takes longer, by precision.
        off: What its results in bfloat16 are multiplied by.
    """

    name, version, fixed_up_to = "halving", "1", 0
    precisions = ("float32", "bfloat16")

    def __init__(self, slow, off=1.0):
        self.slow, self.off = slow, off

    def missing(self):
        return None

    def settle(self, program):
        return program

    def load(self, model, *, batch_size=None, precision="float32", threads=None):
        program = OnnxRuntime().load(model, batch_size=batch_size, threads=threads)

        def run(rows):
            time.sleep(self.slow[precision])
            outputs = program(rows)
            return outputs if precision == "float32" else tuple(rounded(each) * self.off for each in outputs)

        run.inputs, run.outputs = program.inputs, program.outputs
        return run


def rounded(array):
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return (bits + 0x8000 & 0xFFFF0000).view(np.float32)


@pytest.fixture
def started(tmp_path, monkeypatch):
    def started(engine, kinds=(Forward.kind, BFLOAT16), sizes=(1, 4)):
        monkeypatch.setattr(graph_backend, "engines_for", lambda *given: (engine,))
        model = tmp_path / "model.onnx"
        model.write_bytes(convolution())
        source = GraphSource(model, output="logits", height=HEIGHT, width=WIDTH, batch_sizes=sizes)
        backend = GraphBackend(source)
        return backend, backend.warm_up(list(kinds), lambda line: None)

    return started


def masked_rows():
    masks = np.random.default_rng(0).random((4, HEIGHT, WIDTH), np.float32)
    return MaskedForward(pictures(1)[0], masks, 0.5).rows, pictures(1) * masks[:, None] + 0.5 * (1 - masks[:, None])


def test_masked_passes_run_in_it_where_it_gains(started):
    backend, failed = started(Halving({"float32": 0.02, "bfloat16": 0.0}))
    assert failed == {}
    assert backend.reduced_precision == "bfloat16"
    rows, inputs = masked_rows()
    (full,), (reduced,) = backend.run(MaskedForward.kind, rows), backend.run(BFLOAT16, rows)
    expected = convolution_by_hand(inputs)[1]
    np.testing.assert_allclose(full, expected, atol=1e-5)
    np.testing.assert_array_equal(reduced, rounded(full))
    assert (reduced != full).any()
    assert max(backend.costs(BFLOAT16).values()) < 0.02 < max(backend.costs(MaskedForward.kind).values())


def test_it_gains_with_batches_of_one_too(started):
    """Programs are compared on more rows than these take."""
    backend, failed = started(Halving({"float32": 0.02, "bfloat16": 0.0}), sizes=(1,))
    assert failed == {}
    rows, inputs = masked_rows()
    (reduced,) = backend.run(BFLOAT16, tuple(array[:1] for array in rows))
    np.testing.assert_array_equal(reduced, rounded(convolution_by_hand(inputs[:1])[1].astype(np.float32)))


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (Halving({"float32": 0.0, "bfloat16": 0.02}), "bfloat16 gains little here"),
        (Halving({"float32": 0.02, "bfloat16": 0.0}, off=1.5), "differs from the reference"),
    ],
    ids=["slow", "wrong"],
)
def test_it_is_refused_where_it_is_slow_or_wrong(started, engine, why):
    backend, failed = started(engine, [Forward.kind, Features.kind, INPUT_GRADIENT, BFLOAT16])
    assert list(failed) == [BFLOAT16]
    assert why in failed[BFLOAT16]
    rows, inputs = masked_rows()
    np.testing.assert_allclose(backend.run(MaskedForward.kind, rows)[0], convolution_by_hand(inputs)[1], atol=1e-5)


def test_a_machine_without_it_says_so(started):
    backend, failed = started(OnnxRuntime(), [Forward.kind])
    assert backend.reduced_precision == ""
    assert failed == {}
