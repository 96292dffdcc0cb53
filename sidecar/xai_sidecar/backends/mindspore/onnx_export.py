"""Exports a net as an ONNX model with a free batch axis.

MindSpore exports a net for one shape, and writes what depends on the batch size into constants: the shapes of
reshapes, mostly. So the net is exported for two batch sizes, and where an integer constant differs between the two,
the straight line through both takes its place, computed from the batch size at hand, whatever operator it goes into.
That cannot be right for every net, and MindSpore's own translation may be wrong as well: the model is not to be trusted
before its outputs have been compared with the net's, for several inputs and batch sizes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xai_sidecar.backends.mindspore.compile_cache import uncached
from xai_sidecar.backends.mindspore.loading import error_line
from xai_sidecar.backends.mindspore.programs import in_place_as_plain
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.surgery import shared_copy
from xai_sidecar.engine.work import Array

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_SIZES = (2, 3)
"""Batch sizes exported. Not 1, for which MindSpore leaves things out, and one apart, which makes the slope a
difference."""

_BATCH = "batch"
"""Name of the free axis. The names of what is computed from it begin so."""


class ExportError(Exception):
    """The net cannot be exported to ONNX. The message is one line that says why."""


def export_onnx(net: nn.Cell, example: Array) -> bytes:
    """Exports a net, as for inference, to a model whose batch axis is free. The net stays as it is.

    Args:
        net: Takes one tensor and returns one, or a tuple of several; the first axis of each is the row.
        example: (1, …) float32, an input of the net; only its shape matters.

    Returns:
        The serialised model. It has one input; its outputs come in the net's order.

    Raises:
        ExportError: onnx is not installed, the net has an operator that MindSpore cannot export, the model takes more
            than 2 GB, or more than some integers depends on the batch size.
    """
    try:
        return _export(net, example)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(error_line(error)) from error


def _export(net: nn.Cell, example: Array) -> bytes:
    model = _exported(net, example, _SIZES[0])
    weights = {parameter.name for parameter in net.get_parameters()}
    # Nets without a reshape or the like have only weights and bounds of activations; these are spared the second time.
    if any(value.ndim or value.dtype.kind != "f" for value in _constants(model.graph, weights).values()):
        _compute_what_differs(model.graph, _exported(net, example, _SIZES[1]).graph, weights)
    for value in (*model.graph.input, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        if not axes or axes[0].dim_value != _SIZES[0]:
            raise ExportError(f"the first axis of {value.name} is not the batch")
        axes[0].dim_param = _BATCH
    del model.graph.value_info[:]
    return model.SerializeToString()


def _exported(net: nn.Cell, example: Array, size: int) -> ModelProto:
    """The net as MindSpore exports it for one batch size."""
    import onnx

    inputs = ms.Tensor(np.repeat(np.asarray(example, np.float32), size, axis=0))
    with tempfile.TemporaryDirectory(prefix="xai-sidecar-") as folder:
        path = Path(folder) / "net.onnx"
        with in_place_as_plain(), uncached():
            # A copy, since exporting leaves traces on a cell. The graph that is compiled goes when the copy goes.
            ms.onnx.export(shared_copy(net), inputs, file_name=str(path))
        if len(list(path.parent.iterdir())) > 1:  # the weights went to files of their own
            raise ExportError("the model takes more than 2 GB")
        return onnx.load(path)


def _constants(graph: GraphProto, weights: Collection[str]) -> dict[str, Array]:
    """The values of a graph that are neither weights nor computed, by name."""
    from onnx import numpy_helper

    tensors = {node.output[0]: node.attribute[0].t for node in graph.node if _is_constant(node)}
    tensors.update({tensor.name: tensor for tensor in graph.initializer if tensor.name not in weights})
    return {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}


def _is_constant(node: NodeProto) -> bool:
    return node.op_type == "Constant" and [attribute.name for attribute in node.attribute] == ["value"]


def _compute_what_differs(graph: GraphProto, other: GraphProto, weights: Collection[str]) -> None:
    """Replaces constants that differ between the two batch sizes by values computed from the batch size.

    Raises:
        ExportError: Something other than constants of integers differs.
    """
    _check_same_but_constants(graph, other)
    others = _constants(other, weights)
    lines = {}
    for name, value in _constants(graph, weights).items():
        if value.shape == others[name].shape and value.tobytes() == others[name].tobytes():
            continue
        if value.shape != others[name].shape or value.dtype != np.int64:
            raise ExportError(f"the constant {name} of shape {value.shape} depends on the batch size")
        slope = others[name] - value
        lines[name] = slope, value - slope * _SIZES[0]
    if not lines:
        return
    nodes = [*_computed(graph, lines), *(node for node in graph.node if node.output[0] not in lines)]
    del graph.node[:]
    graph.node.extend(nodes)
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name in lines:
            del graph.initializer[index]


def _check_same_but_constants(graph: GraphProto, other: GraphProto) -> None:
    if len(graph.node) != len(other.node):
        raise ExportError("the operators depend on the batch size")
    for node, counterpart in zip(graph.node, other.node, strict=True):
        if node != counterpart and not (
            _is_constant(node) and _is_constant(counterpart) and node.output == counterpart.output
        ):
            raise ExportError(f"the operator {node.op_type} named {node.name} depends on the batch size")


def _computed(graph: GraphProto, lines: dict[str, tuple[Array, Array]]) -> Iterator[NodeProto]:
    """Nodes that compute slope * batch size + offset for each name."""
    from onnx import helper, numpy_helper

    def constant(name: str, value: Array) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"{_BATCH}/{name}"))
        return f"{_BATCH}/{name}"

    yield helper.make_node("Shape", [graph.input[0].name], [f"{_BATCH}/shape"])
    yield helper.make_node("Gather", [f"{_BATCH}/shape", constant("axis", np.array(0))], [_BATCH])
    for name, (slope, offset) in lines.items():
        scaled = f"{_BATCH}/{name}/scaled"
        yield helper.make_node("Mul", [_BATCH, constant(f"{name}/slope", slope)], [scaled])
        yield helper.make_node("Add", [scaled, constant(f"{name}/offset", offset)], [name])
