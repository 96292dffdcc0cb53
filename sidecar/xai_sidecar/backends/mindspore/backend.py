"""A MindSpore net as a backend: compiled programs of fixed batch sizes, checked against the net itself."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from xai_sidecar.backends.graph.programs import KindProgram, check_gain
from xai_sidecar.backends.mindspore import compile_cache
from xai_sidecar.backends.mindspore.device import select_device
from xai_sidecar.backends.mindspore.exported import ExportedNet, reduced_precision
from xai_sidecar.backends.mindspore.features import features_net
from xai_sidecar.backends.mindspore.layers import (
    check_has_gradient,
    layers_with_gradient,
    spatial_layers,
    trace_calls,
)
from xai_sidecar.backends.mindspore.loading import Loaded, error_line, load_net
from xai_sidecar.backends.mindspore.net_version import net_version
from xai_sidecar.backends.mindspore.onnx_export import ExportError
from xai_sidecar.backends.mindspore.programs import (
    Program,
    compiled_graphs,
    forward_program,
    in_place_as_plain,
    input_gradient_program,
    layer_gradient_program,
    release_graphs,
)
from xai_sidecar.backends.mindspore.rectifiers import check_rectifiers, rectified_copy
from xai_sidecar.backends.mindspore.reference import Reference, WrongOutputError, check, first_logits, one_by_one
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.source import ModelSource
from xai_sidecar.backends.mindspore.surgery import shared_copy, tapped_copy
from xai_sidecar.backends.passes import kind_text, ood_training, run_passes, same_passes, to_layout
from xai_sidecar.backends.runtimes.engines import engines_for
from xai_sidecar.backends.runtimes.keeping import EngineCache
from xai_sidecar.backends.spatial.layers import default_layer
from xai_sidecar.backends.timing import seconds, take_times
from xai_sidecar.engine.backend import Layer, Report
from xai_sidecar.engine.work import Array, Features, Forward, Kind
from xai_sidecar.errors import ConfigError, PreconditionError, SidecarError

_ON_DEMAND_KEPT = 8
"""Layers compiled on demand that are kept; the least recently used one is dropped."""


class MindSporeBackend:
    """A MindSpore net as a `Backend`.

    Args:
        source: What to load.
        net: A net to serve instead of the one that `source.factory` makes. It is not changed.

    Raises:
        ConfigError: The device, factory or checkpoint does not exist or does not fit, or the net does not accept the
            configured input.
    """

    hang_is_fatal = True  # what hangs in MindSpore's kernels cannot be ended from outside
    concurrency, unready = 1, ""

    def __init__(self, source: ModelSource, net: nn.Cell | None = None) -> None:
        select_device(source.device)
        self._source = source
        loaded = load_net(source.factory, source.arguments, source.checkpoint) if net is None else Loaded(net, "")
        self.weights, self.weights_warning = loaded.weights, loaded.warning
        select_device(source.device, source.threads)  # again, in case the factory has selected another one
        self._net, self._is_own = shared_copy(loaded.net), net is None
        probe = self._probe(max(2, *source.batch_sizes, *source.gradient_batch_sizes))
        self._example = probe[:1]
        self.device = source.device
        self.engine = f"mindspore {ms.__version__}"
        self.engine_note = ""
        self.reduced_precision = reduced_precision(source)
        logits = first_logits(self._net, self._example, source.layout)
        self.class_count = int(logits.shape[1])
        calls = trace_calls(self._net, self._example)
        self._cache_key = compile_cache.cache_key(
            self._net, source.factory, source.arguments, source.layout, self._example.shape, source.device
        )
        # Of the original net, on which no pass ran: state that a pass leaves in cells may differ by machine.
        self.version = net_version(loaded.net, calls, source.preparation, source.layout, self._example.shape)
        size = source.height, source.width
        self._key = self.version, self._cache_key, [f"{x:.3g}" for x in logits[0, :16]]
        found = spatial_layers(self._net, calls, self._example, size, source.layout, source.cache, self._key)
        self._spatial = found.spatial
        self.layers: Mapping[str, Layer] = self._spatial
        self.refused_layers: Mapping[str, str] = found.refused
        self._probes = probe
        self.default_layer = default_layer(
            self._spatial,
            probe,
            lambda layers, inputs: layers_with_gradient(self._net, layers, inputs, self.class_count),
        )
        self._reference = Reference(self._net, probe, logits, self._spatial)
        self.ood = ood_training(source.ood, self.version, self._earlier_version)
        self._programs: OrderedDict[Kind, Program] = OrderedDict()
        self._costs: dict[Kind, dict[int, float]] = {}
        self._warmed: set[Kind] = set()
        self._refused: dict[Kind, str] = {}
        self._graphs: dict[Kind, frozenset[str]] = {}
        self._exported: ExportedNet | None = None
        self.compiling = False

    # ---------------------------------------------------------------------------------------- the Backend protocol

    def warm_up(self, kinds: list[Kind], report: Report) -> dict[Kind, str]:
        """Compiles, checks and times all kinds in all their batch sizes; see `Backend.warm_up`."""
        wanted = list(dict.fromkeys(map(same_passes, kinds)))
        self._warmed = set(wanted)
        missing = sorted(set(wanted) - set(self._run_as_graph(wanted, report)), key=wanted.index)
        left = [kind for kind in missing if not kind.precision]
        failed = self._compile_cached(left, report) if left else {}
        reduced = [kind for kind in missing if kind.precision]
        failed |= {kind: ConfigError(f"No engine runs this net in {kind.precision} with a gain.") for kind in reduced}
        if Forward.kind in failed:
            raise failed[Forward.kind]
        self._drop(*failed)
        # Programs of graphs were timed when their engine was chosen.
        compiled = {kind: sizes for kind, sizes in self._costs.items() if kind in left}
        take_times(compiled, lambda kind, size: seconds(self._programs[kind], self._reference.inputs(kind, size)))
        if self._exported is not None:
            self._exported.forget(serves_alone=not left)
        return {kind: failed[same_passes(kind)].message for kind in kinds if same_passes(kind) in failed}

    def costs(self, kind: Kind) -> Mapping[int, float]:
        """Batch sizes and measured seconds; of a kind not compiled yet only its smallest size, assumed to take 1 s."""
        return self._costs.get(same_passes(kind)) or {self._sizes(kind)[0]: 1.0}

    def run(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs one batch; see `Backend.run`. A layer that was not warmed up is compiled first, which takes seconds."""
        compiled = same_passes(kind)
        if compiled not in self._costs:
            self._compile_on_demand(compiled)
        return run_passes(kind, rows, self._program(compiled), self._source.layout, self._spatial, self._source.ood)

    def close(self) -> None:
        """Drops the programs."""
        self._drop(*self._programs)

    # ---------------------------------------------------------------------------------------- start

    def _probe(self, size: int) -> Array:
        """Random inputs in the net's layout, the same in every process."""
        source = self._source
        shape = (size, source.channels, source.height, source.width)
        return to_layout(np.random.default_rng(0).standard_normal(shape).astype(np.float32), source.layout)

    def _earlier_version(self) -> str:
        """The version of this net that earlier releases wrote into OoD nets' files."""
        source = self._source
        return compile_cache.earlier_version(self._net, source.preparation, source.layout, self._example.shape)

    def _run_as_graph(self, wanted: list[Kind], report: Report) -> list[Kind]:
        """Lets an engine for graphs run what it runs right; returns the kinds of these."""
        if self._source.forward_engine == "mindspore" or not self._source.device.startswith("cpu"):
            return []
        try:
            source = self._source
            cache = EngineCache(source.cache) if source.cache else None
            engines = engines_for(source.device, cache, source.forward_engine)  # before exporting
            report("exporting the net as an ONNX graph")
            net = self._net, self._example, self._spatial, self.class_count
            self._exported = ExportedNet(*net, engines, source.threads, cache, self._key, is_own=self._is_own)
            self._adopt_graph(Forward.kind, report)
        except (ExportError, PreconditionError, ConfigError) as error:
            self._exported = None
            self._drop(Forward.kind)
            why = str(error).rstrip(".")
            self.engine_note = f"MindSpore runs this net: {why}."
            if self._source.forward_engine != "auto":
                message = f"{self._source.forward_engine} cannot run this net: {why}. With auto, MindSpore runs it."
                raise ConfigError(message, field="model.forward_engine") from None
            report(self.engine_note)
            return []
        return [Forward.kind] + [kind for kind in wanted if kind != Forward.kind and self._is_graph(kind, report)]

    def _is_graph(self, kind: Kind, report: Report) -> bool:
        """Whether an engine for graphs runs a kind right; if not, MindSpore does, and the reason is reported."""
        if self._exported is None:
            return False
        try:
            self._adopt_graph(kind, report)
        except (PreconditionError, ConfigError) as error:
            self._drop(kind)
            if not kind.precision:
                report(f"MindSpore runs the {kind_text(kind)}: {error.message}")
            return False
        return True

    def _adopt_graph(self, kind: Kind, report: Report) -> None:
        report(f"making and checking the graph of the {kind_text(kind)}")
        if self._exported is None:
            raise PreconditionError("The net was not exported.")
        if kind.layer:
            check_has_gradient(self._net, self._spatial[kind.layer], self._probes, self.class_count)
        sizes = self._sizes(kind)
        rows = self._reference.inputs(kind, max(2, *sizes))
        program = self._exported.program(kind, sizes, rows)
        if kind.precision:  # its graph was compared with the net in float32
            full = self._programs.get(replace(kind, precision=""))
            check_gain(kind, program, full if isinstance(full, KindProgram) else None, rows)
            self._costs[kind] = {size: chosen.seconds for size, chosen in program.choice.by_size.items()}
            self._programs[kind] = program
            return
        self._programs[kind] = program
        for size in sizes:
            self._adopt(kind, size)
            self._costs[kind][size] = program.choice.by_size[size].seconds
        if kind == Forward.kind:
            self.engine = program.choice.engine

    def _cell(self, layer: str) -> nn.Cell:
        return dict(self._net.cells_and_names())[layer]

    def _compile_cached(self, kinds: list[Kind], report: Report) -> dict[Kind, ConfigError]:
        """Compiles kinds, or loads them from the compile cache; returns the errors of those that fail."""
        source = self._source
        sizes = (source.batch_sizes, source.gradient_batch_sizes, [str(kind) for kind in kinds])
        key = hashlib.sha256(repr((self._cache_key, sizes)).encode()).hexdigest()[:20]
        with compile_cache.compile_cache(source.cache, key, report) as warm:
            failed = self._compile_all(kinds, "loading compiled" if warm else "compiling", report)
        wrong = [error.message for error in failed.values() if isinstance(error, WrongOutputError)]
        if wrong and warm and source.cache is not None:
            report(f"discarding the compile cache: {wrong[0]}")
            compile_cache.discard(source.cache, key)
            self._drop(*kinds)
            failed = self._compile_all(kinds, "compiling", report)
        return failed

    def _compile_all(self, kinds: list[Kind], verb: str, report: Report) -> dict[Kind, ConfigError]:
        """Compiles all sizes of all kinds; returns the errors of those that fail."""
        steps = [(kind, size) for kind in kinds for size in self._sizes(kind)]
        failed: dict[Kind, ConfigError] = {}
        for done, (kind, size) in enumerate(steps, start=1):
            if kind in failed:
                continue
            report(f"{verb} {kind_text(kind)}, batch size {size} ({done} of {len(steps)})")
            try:
                self._compile(kind, size)
            except ConfigError as error:
                failed[kind] = error
        return failed

    def _compile(self, kind: Kind, size: int) -> None:
        """Compiles a kind at a batch size, checks and times it. Size 1 comes first: the others are checked by it."""
        before = compiled_graphs()
        try:
            with in_place_as_plain():
                self._program(kind)(self._reference.inputs(kind, size))
            self._adopt(kind, size)
        except WrongOutputError as error:
            raise WrongOutputError(
                f"compiled, {error.message} The net cannot be served so on this device.", field="model.factory"
            ) from error
        except SidecarError as error:
            raise ConfigError(error.message) from error
        except Exception as error:
            raise ConfigError(
                f"compiling the {kind_text(kind)} at batch size {size} failed: {error_line(error)}",
                field="model.factory",
            ) from error
        finally:
            self._graphs[kind] = self._graphs.get(kind, frozenset()) | (compiled_graphs() - before)

    def _adopt(self, kind: Kind, size: int) -> None:
        """Checks a program at a batch size against the reference, and times it.

        At size 1 it is called twice with different inputs: a faulty program may repeat the result of its first call.
        """
        program = self._programs[kind]
        for start in (0, 1) if size == 1 else (0,):
            rows = self._reference.inputs(kind, size, start)
            if kind in (Forward.kind, Features.kind):
                expected = self._reference.forward(kind, size, start)
            elif size == 1:
                expected = self._reference.gradient(kind, start, program if isinstance(program, KindProgram) else None)
            else:
                expected = one_by_one(program, rows)
            check(program(rows), expected, f"the {kind_text(kind)} at batch size {size}")
        self._costs.setdefault(kind, {})[size] = seconds(program, rows)

    def _compile_on_demand(self, kind: Kind) -> None:
        if kind not in self._refused:
            self.compiling = True
            try:
                if not self._is_graph(kind, lambda line: None):
                    self._compile(kind, self._sizes(kind)[0])
            except ConfigError as error:
                self._drop(kind)
                self._refused[kind] = error.message
            finally:
                self.compiling = False
                if self._exported is not None:
                    self._exported.forget(serves_alone=not self._graphs)
        if kind in self._refused:
            raise PreconditionError(f"{self._refused[kind]} Ask for another layer.")

    # ---------------------------------------------------------------------------------------- programs

    def _sizes(self, kind: Kind) -> tuple[int, ...]:
        return self._source.gradient_batch_sizes if kind.name.endswith("gradient") else self._source.batch_sizes

    def _program(self, kind: Kind) -> Program:
        program = self._programs.get(kind)
        if program is None:
            program = self._programs[kind] = self._make_program(kind)
            on_demand = [known for known in self._programs if known not in self._warmed]
            self._drop(*on_demand[:-_ON_DEMAND_KEPT])
        self._programs.move_to_end(kind)
        return program

    def _drop(self, *kinds: Kind) -> None:
        for kind in kinds:
            self._programs.pop(kind, None)
            self._costs.pop(kind, None)
            release_graphs(self._graphs.pop(kind, frozenset()))

    def _make_program(self, kind: Kind) -> Program:
        if kind == Forward.kind:
            return forward_program(self._net)
        if kind == Features.kind:
            return forward_program(features_net(self._net, self._example, self.class_count))
        if kind.name == "input_gradient":
            if kind.relu_rule and self._unreached:
                raise PreconditionError(self._unreached)
            net = rectified_copy(self._net, kind.relu_rule) if kind.relu_rule else self._net
            return input_gradient_program(net, self.class_count)
        if kind.name == "layer_gradient":
            check_has_gradient(self._net, self._spatial[kind.layer], self._probes, self.class_count)
            return layer_gradient_program(*tapped_copy(self._net, self._cell(kind.layer)), self.class_count)
        raise ValueError(f"there is no program for {kind}")

    @cached_property
    def _unreached(self) -> str:
        """Why ReLU rules do not apply to this net; empty if they do. It takes a second or two to compute."""
        try:
            check_rectifiers(self._net, self._example)
        except PreconditionError as error:
            return error.message
        return ""
