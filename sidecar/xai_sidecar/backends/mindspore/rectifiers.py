"""Nets whose rectifiers have modified gradients: guided backpropagation and deconvolution.

A rectifier is zero below zero and the identity above it, up to a ceiling if it has one. A rule reaches it if it is a
cell, since a cell may have its own gradient. Any other activation would keep its ordinary gradient, and the map would
silently be neither by the rule nor the plain gradient. So the graph that runs is searched for other nonlinear
operations; every one counts that is not known to be harmless.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from xai_sidecar.backends.mindspore.compile_cache import uncached
from xai_sidecar.backends.mindspore.loading import error_line
from xai_sidecar.backends.mindspore.programs import compiled_graphs, release_graphs
from xai_sidecar.backends.mindspore.runtime import api, ms, nn
from xai_sidecar.backends.mindspore.surgery import wrapped_copy
from xai_sidecar.engine.work import Array
from xai_sidecar.errors import PreconditionError

_NAMED = 3
"""Layers that an error names; of further ones it gives the number."""

_CURE = "Ask for gradient or gradcam instead."

_LINEAR = """
    Add AddN AddScalar Sub SubScalar Neg Muls Divs BiasAdd Cast Identity Clone Contiguous Copy
    Conv1D Conv2D Conv3D Conv2DTranspose Conv3DTranspose ConvTranspose2D Conv2DBackpropInput Convolution
    Dense ReduceSum ReduceMean Sum Mean
    Reshape Flatten ExpandDims Unsqueeze Squeeze Transpose Tile Repeat RepeatInterleave Expand BroadcastTo
    MakeTuple TupleGetItem MakeList make_list ListGetItem Concat Stack Unstack Split SplitWithSize SplitTensor Chunk
    Slice StridedSlice Narrow Gather GatherD GatherNd IndexSelect Roll Reverse
    Pad ConstantPadND MirrorPad ReflectionPad2D ReplicationPad2D
    SpaceToDepth DepthToSpace SpaceToBatchND BatchToSpaceND PixelShuffle ChannelShuffle Im2Col
    ResizeBilinear ResizeNearestNeighbor ResizeBicubic UpsampleNearest2D UpsampleBilinear2D UpsampleBicubic2D
"""

_PRODUCTS = frozenset(["Mul", "MatMul", "BatchMatMul", "Mm", "Einsum"])
"""Linear, too, where only one of their inputs depends on the net's."""

_POOLING = """
    AvgPool AvgPool1D AvgPool2D AvgPool3D AdaptiveAvgPool1D AdaptiveAvgPool2D AdaptiveAvgPool3D
    MaxPool MaxPool3D MaxPoolWithMask MaxPoolWithIndices MaxPoolWithArgmax AdaptiveMaxPool1D AdaptiveMaxPool2D
"""

_NORMALISATION = "BatchNorm LayerNorm GroupNorm InstanceNorm RmsNorm L2Normalize LRN Dropout"

_CONTROL = "Load Depend UpdateState Partial Switch TensorMove"

_HARMLESS = frozenset(f"{_LINEAR} {_POOLING} {_NORMALISATION} {_CONTROL}".split())
"""Names of primitives, without what marks variants, that the rules leave to the chain rule."""

_BLIND = frozenset(["Shape", "TensorShape", "ZerosLike", "OnesLike"])
"""Primitives whose result does not depend on the values of their input."""


def rectified_copy(net: nn.Cell, rule: str) -> nn.Cell:
    """A copy of a net on the same weights, with the same outputs, whose rectifiers have gradients by a rule.

    It reaches cells that construct as nn.ReLU, nn.ReLU6 or mint.nn.ReLU6 do, or nn.Hardtanh or mint.nn.Hardtanh with
    a minimum of zero, and do not do so in place. `check_rectifiers` tells whether those are all.

    Args:
        net: The net; it is not changed.
        rule: "guided": the gradient passes where it is positive and the rectifier is neither at zero nor at its
            ceiling (J. Springenberg et al. 2014, arXiv:1412.6806, section 3.4). "deconvolution": it passes where it is
            positive (M. Zeiler, R. Fergus 2014, arXiv:1311.2901, section 2.1).

    Raises:
        ValueError: There is no such rule.
    """
    rules = {"guided": _Guided, "deconvolution": _Deconvolution}
    if rule not in rules:
        raise ValueError(f"there is no rule {rule!r}, only {', '.join(rules)}")
    return wrapped_copy(net, {cell: rules[rule](ceiling) for cell, ceiling in _rectifiers(net).items()})


def unreached_activations(net: nn.Cell, example: Array) -> list[str]:
    """The nonlinear operations that run in a net and that the rules of `rectified_copy` do not reach.

    A layer is named by its path and what runs there by MindSpore's primitives, as in "blocks.0.act (GeLU ×18)". What
    several cells call as a function goes by the first of them, and MindSpore may put what runs in a SequentialCell
    down to that. A hand-written activation, or normalisation, goes by what it is made of: "head (Greater, Select)".
    The product of two values that both depend on the input counts as well: x · ReLU6(x + 3) / 6 is a hard swish.

    Args:
        net: The net; it is not changed.
        example: One input as the net takes it, (1, …) float32.

    Raises:
        PreconditionError: The net cannot be traced.
    """
    return _search(net, example)[1]


def check_rectifiers(net: nn.Cell, example: Array) -> None:
    """Checks that the rules of `rectified_copy` apply to a net; see `unreached_activations`.

    Args:
        net: The net; it is not changed.
        example: One input as the net takes it, (1, …) float32.

    Raises:
        PreconditionError: An activation runs that the rules do not reach, or none that they do.
    """
    reached, unreached = _search(net, example)
    if unreached:
        rest = len(unreached) - _NAMED
        named = ", ".join(unreached[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
        raise PreconditionError(f"The rule cannot reach every activation of this net: {named}. {_CURE}")
    if not reached:
        raise PreconditionError(f"No ReLU or the like runs in this net, so the rule has nothing to act on. {_CURE}")


# -------------------------------------------------------------------------------------------------------------- rules


class _Rule(nn.Cell):
    """A rectifier with another gradient.

    Attributes:
        layer: The rectifier; set by `wrapped_copy`.
        ceiling: The value that it does not exceed.
    """

    def __init__(self, ceiling: float) -> None:
        super().__init__(auto_prefix=False)
        self.layer: nn.Cell
        self.ceiling = ceiling

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.layer(x)


class _Guided(_Rule):
    def bprop(self, x: ms.Tensor, out: ms.Tensor, dout: ms.Tensor) -> tuple[ms.Tensor]:
        # Whether x lies between zero and the ceiling can be told by the output just as well.
        passes = out > 0 if self.ceiling == math.inf else ms.ops.logical_and(out > 0, out < self.ceiling)
        return (ms.ops.relu(dout) * passes.astype(dout.dtype),)


class _Deconvolution(_Rule):
    def bprop(self, x: ms.Tensor, out: ms.Tensor, dout: ms.Tensor) -> tuple[ms.Tensor]:
        return (ms.ops.relu(dout),)


def _rectifiers(net: nn.Cell) -> dict[nn.Cell, float]:
    """The cells of a net that are rectifiers, and their ceilings."""
    ceilings = {cell: _ceiling(cell) for _, cell in net.cells_and_names()}
    return {cell: ceiling for cell, ceiling in ceilings.items() if ceiling is not None}


def _ceiling(cell: nn.Cell) -> float | None:
    # A gradient of the user's own is not for us to replace, nor can a value be looked at that is overwritten.
    if cell.has_bprop or getattr(cell, "inplace", False):
        return None
    construct = type(cell).construct  # not the class itself: its subclasses that compute the same are as good
    if construct is nn.ReLU.construct:
        return math.inf
    if construct in (nn.ReLU6.construct, ms.mint.nn.ReLU6.construct):
        return 6.0
    if construct in (nn.Hardtanh.construct, ms.mint.nn.Hardtanh.construct) and cell.min_val == 0:
        return float(cell.max_val)
    return None


# ------------------------------------------------------------------------------------------------------------- search


class Rectified(ms.ops.PrimitiveWithInfer):
    """Placeholder, recognised by its name, for a reached rectifier in the graph that is searched. It cannot run.

    A ReLU with an attribute would not do: the compiler merges it with an unreached one on the same value.
    """

    @ms.ops.prim_attr_register
    def __init__(self) -> None:
        """Named by its class."""

    def infer_shape(self, shape: Any) -> Any:
        """That of the input."""
        return shape

    def infer_dtype(self, dtype: Any) -> Any:
        """That of the input."""
        return dtype


class _Reached(nn.Cell):
    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.rectified = Rectified()

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.rectified(x)


class _Searched(nn.Cell):
    def __init__(self, net: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, inputs: ms.Tensor) -> ms.Tensor:
        return self.net(inputs)


def _search(net: nn.Cell, example: Array) -> tuple[int, list[str]]:
    """The number of reached rectifiers that run, and the other nonlinear operations that do."""
    reached = 0
    unreached: dict[str, Counter[str]] = {}
    for layer, kind, inputs, flowing in _operations(_graph(net, example)):
        if kind == Rectified.__name__:
            reached += 1
        elif not _harmless(kind, inputs, flowing):
            called = f"functional {kind}" if kind in ("ReLU", "ReLU6") else kind
            unreached.setdefault(layer, Counter())[called] += 1
    rectifiers = _rectifiers(net)
    for layer, cell in net.cells_and_names():
        # The gradient of a cell is all that counts; the rectifiers inside are never asked for theirs.
        if cell.has_bprop and any(inner in rectifiers for _, inner in cell.cells_and_names()):
            unreached.setdefault(layer, Counter())["its own bprop"] += 1
    return reached, [f"{layer or 'the net itself'} ({_listed(kinds)})" for layer, kinds in unreached.items()]


def _listed(kinds: Counter[str]) -> str:
    return ", ".join(kind if count == 1 else f"{kind} ×{count}" for kind, count in kinds.items())


def _graph(net: nn.Cell, example: Array) -> Any:
    """The graph of a net's forward pass as a MindIR model, without weights; reached rectifiers are `Rectified`."""
    copy = wrapped_copy(net, {cell: _Reached() for cell in _rectifiers(net)})
    for name, cell in copy.cells_and_names():
        cell._scope = name or "."  # what MindSpore names nodes by; it makes up a name only where there is none
    searched = _Searched(copy)
    executor = api._JitExecutor(_Searched.construct, time.time_ns(), obj=searched)
    before = compiled_graphs()
    try:
        # Phases so named end at the graph, with no kernels; it is what mindspore.export does, but for the file.
        with uncached():
            phase = executor.compile("construct", ms.Tensor(example), phase="export.mindir.")
        stream = executor._get_func_graph_proto(searched, phase, "mind_ir")
    except Exception as error:
        why = error_line(error).rstrip(".")
        raise PreconditionError(f"This net cannot be searched for activations: {why}. {_CURE}") from error
    finally:
        release_graphs(compiled_graphs() - before)
    model = ms.train.mind_ir_pb2.ModelProto()
    model.ParseFromString(stream)
    return model


def _operations(model: Any) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Operations on values that depend on the input: layer, primitive, inputs, and which of these depend on it.

    Functions, such as the branches of an `if`, are taken to depend on the input in all but constants.
    """
    kinds = {primitive.name: primitive.op_type for primitive in model.primitives} | {"Constant": "Constant"}
    graphs = (model.graph, *model.functions)
    functions = {graph.name for graph in graphs} | {name for graph in graphs for n in graph.node for name in n.output}
    for graph in graphs:
        fixed = {parameter.name for parameter in model.graph.parameter}
        for node in graph.node:
            called = node.op_type.removeprefix("REF::")
            kind = kinds.get(called, called)
            inputs = list(node.input[:1] if kind in ("Load", "Depend") else node.input)  # the others are for the order
            flowing = [name for name in inputs if name not in fixed]
            if called not in kinds and called in functions:
                continue
            if not flowing or kind in _BLIND:
                fixed.update(node.output)
            else:
                layer = node.domain.rpartition("/")[0]
                yield "" if layer in (".", "Default") else layer, kind, inputs, flowing


def _harmless(kind: str, inputs: list[str], flowing: list[str]) -> bool:
    in_place = kind.startswith("Inplace")
    name = re.sub(r"(Ext|View|V\d+)+$", "", kind.removeprefix("Inplace"))
    if in_place and inputs[0] not in flowing:  # makes a constant depend on the input, which then goes unseen
        return False
    if name in _PRODUCTS:
        return len(flowing) == 1
    if name in ("Div", "RealDiv"):
        return flowing == inputs[:1]
    return name in _HARMLESS
