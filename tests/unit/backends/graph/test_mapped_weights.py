"""Weights of a graph in a file: the same numbers, also when their memory was given back."""

import tempfile

import numpy as np
import onnx
from small_graphs import serialised

from xai_sidecar.backends.graph.graph import read
from xai_sidecar.backends.graph.mapped_weights import with_mapped_weights
from xai_sidecar.backends.graph.reference import Reference

SIDE = 40


def graph():
    rng = np.random.default_rng(0)
    weights = {
        "wide": rng.standard_normal((SIDE, SIDE)).astype(np.float32),
        "narrow": rng.standard_normal(SIDE).astype(np.float32),
        "double": rng.standard_normal((SIDE, SIDE)),
    }
    nodes = [
        ("MatMul", ["x", "wide"], ["product"], {}),
        ("Add", ["product", "narrow"], ["sum"], {}),
        ("Cast", ["sum"], ["cast"], {"to": onnx.TensorProto.DOUBLE}),
        ("MatMul", ["cast", "double"], ["y"], {}),
    ]
    return read(onnx.load_from_string(serialised(nodes, {"x": ["batch", SIDE]}, ["y"], weights))), weights


def test_a_graph_gives_the_same_with_its_weights_in_a_file():
    before, weights = graph()
    after, file = with_mapped_weights(before)
    assert file.bytes.nbytes >= weights["wide"].nbytes + weights["double"].nbytes
    assert after.constants["narrow"] is before.constants["narrow"]
    x = np.random.default_rng(1).standard_normal((3, SIDE)).astype(np.float32)
    right = (x @ weights["wide"] + weights["narrow"]).astype(float) @ weights["double"]
    for _ in range(2):
        for name in ("wide", "double"):
            assert np.shares_memory(after.constants[name], file.bytes)
            np.testing.assert_array_equal(after.constants[name], weights[name])
            assert after.constants[name].dtype == weights[name].dtype
        np.testing.assert_allclose(Reference()(after, (x,))[0], right, rtol=1e-5)
        file.release()


def test_where_there_is_nothing_large_or_no_file_can_be_written_the_graph_stays_as_it_is(monkeypatch):
    before, _ = graph()
    small = before.pruned(["product"])
    small.constants = {}
    assert with_mapped_weights(small) == (small, None)

    def full(**more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert with_mapped_weights(before) == (before, None)
