"""A cell as an ONNX graph: exported, and each of its layers found among the graph's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from xai_sidecar.backends.graph.graph import Graph, read
from xai_sidecar.backends.graph.kept_runs import GraphDigests, KeptRuns
from xai_sidecar.backends.graph.kinds import KindGraphs, Traceable
from xai_sidecar.backends.graph.mapped_weights import with_mapped_weights
from xai_sidecar.backends.graph.programs import KindProgram, Maker
from xai_sidecar.backends.graph.reference import Reference
from xai_sidecar.backends.graph.tracing import Run, trace
from xai_sidecar.backends.mindspore.kept_export import kept_export
from xai_sidecar.backends.mindspore.onnx_export import ExportError, export_onnx
from xai_sidecar.backends.mindspore.resting_parameters import RestingParameters
from xai_sidecar.backends.mindspore.runtime import nn
from xai_sidecar.backends.mindspore.source import ModelSource
from xai_sidecar.backends.mindspore.watching import WatchedNet
from xai_sidecar.backends.runtimes import engines
from xai_sidecar.backends.runtimes.agreement import disagreement
from xai_sidecar.backends.runtimes.keeping import EngineCache
from xai_sidecar.backends.runtimes.program import Engine
from xai_sidecar.backends.spatial.layers import SpatialLayer
from xai_sidecar.engine.work import Array, Kind
from xai_sidecar.errors import ConfigError, PreconditionError

_SAME = 1e-3
"""Tolerance of a layer's output, run as a cell and as a graph: norm of the difference over norm. Rounding makes some
1e-6, and no two values of a net are that close by chance."""


class ExportedNet:
    """A net as a graph, from which the programs of all kinds of work are made.

    Args:
        net: The net; it is not changed.
        example: One input as the net takes it, (1, …) float32.
        layers: Its layers on the picture.
        class_count: Number of logits.
        engines: What may run the graph.
        threads: Threads of the engines; None for one on each usable CPU.
        cache: Where the export and choices of engines are kept; None keeps none.
        key: By its repr, the net with its weights and its code, and the version of MindSpore; for the cache.
        is_own: Whether nobody else has the net.

    Raises:
        ExportError: It cannot be exported; the message is one line.
    """

    def __init__(
        self,
        net: nn.Cell,
        example: Array,
        layers: Mapping[str, SpatialLayer],
        class_count: int,
        engines: Sequence[Engine],
        threads: int | None,
        cache: EngineCache | None,
        key: object = None,
        *,
        is_own: bool = False,
    ) -> None:
        self._parameters = RestingParameters(net if is_own else None)
        self._plain, self._digests = Reference(), GraphDigests()
        run = KeptRuns(self._plain, cache, self._digests)
        try:
            model = kept_export(cache, (key, _onnx_version(), example.shape), partial(export_onnx, net, example))
            graph, traced = trace(_graph(model), example, run)
            graph, self._weights = with_mapped_weights(graph)
        except ValueError as error:
            raise ExportError(str(error)) from error
        found = _matched(WatchedNet(net, layers).run(example), graph, run, example)
        classifier = Traceable(graph, traced, found)
        self._tensors = found
        self._graphs = KindGraphs(lambda: classifier)
        self._maker = Maker(self._graphs, engines, class_count, None, threads, run, cache, self._digests)
        self._made: list[KindProgram] = []

    def program(self, kind: Kind, sizes: Sequence[int], rows: tuple[Array, ...]) -> KindProgram:
        """The program of a kind of work, which has to be compared with the net; see `Maker.make`."""
        if kind.layer and kind.layer not in self._tensors:
            raise PreconditionError(f"The output of the layer {kind.layer!r} is no value of the exported graph.")
        self._made.append(self._maker.make(kind, sizes, rows))
        return self._made[-1]

    def forget(self, *, serves_alone: bool = True) -> None:
        """Lets go of what programs were compared with, and of the memory of the weights, until another one is made.

        Args:
            serves_alone: Whether the net itself runs nothing.
        """
        for program in self._made:
            program.forget()
        self._made.clear()
        self._plain.forget()
        self._digests.forget()
        self._graphs.forget()
        if self._weights is not None:
            self._weights.release()
        if serves_alone:
            self._parameters.rest()


def reduced_precision(source: ModelSource) -> str:
    """See `Backend.reduced_precision`; MindSpore itself runs float32 alone."""
    if source.forward_engine == "mindspore" or not source.device.startswith("cpu"):
        return ""
    try:
        return engines.reduced_precision(engines.engines_for(source.device, None, source.forward_engine))
    except ConfigError:  # which is told where the engines are to run the net
        return ""


def _onnx_version() -> str:
    try:
        return version("onnx")
    except PackageNotFoundError:  # exporting says so
        return ""


def _graph(model: bytes) -> Graph:
    import onnx

    return read(onnx.load_from_string(model))


def _matched(outputs: Mapping[str, Array], graph: Graph, run: Run, example: Array) -> dict[str, str]:
    """The values of a graph that are layers' outputs, by the layers' names."""
    names = [name for node in graph.nodes for name in node.outputs if name]
    everything = graph.copy()
    everything.outputs = names
    values: dict[tuple[int, ...], list[tuple[str, Array]]] = {}
    for name, value in zip(names, run(everything, (example,)), strict=True):
        values.setdefault(value.shape, []).append((name, value))
    found = {}
    for layer, output in outputs.items():
        # The last one that is the same: what a cell returns comes after what it is made of.
        alike = reversed(values.get(output.shape, []))
        same = next((name for name, value in alike if _is_same(value, output)), None)
        if same is not None:
            found[layer] = same
    return found


def _is_same(value: Array, output: Array) -> bool:
    return value.dtype.kind == "f" and value.ndim > 0 and disagreement([value], [output], [_SAME]) is None
