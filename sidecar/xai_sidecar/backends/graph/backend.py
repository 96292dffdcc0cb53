"""A classifier in an ONNX file as a backend: passes and their derivatives, each a graph that an engine runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from xai_sidecar.backends.graph.checking import check_gradient, probe_rows
from xai_sidecar.backends.graph.kept_runs import GraphDigests, KeptRuns
from xai_sidecar.backends.graph.kept_start import KeptStart
from xai_sidecar.backends.graph.kinds import KindGraphs, Traceable
from xai_sidecar.backends.graph.loaded import Found, Loaded, load, probe_inputs
from xai_sidecar.backends.graph.programs import KindProgram, Maker, Prepared, as_model, check_gain, costs
from xai_sidecar.backends.graph.reference import Reference
from xai_sidecar.backends.graph.resting import RestingClassifier
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.passes import kind_text, ood_training, run_passes, same_passes
from xai_sidecar.backends.runtimes.early import EarlyLoads
from xai_sidecar.backends.runtimes.engines import engines_for, reduced_precision
from xai_sidecar.backends.runtimes.in_parts import undivided
from xai_sidecar.backends.runtimes.keeping import EngineCache
from xai_sidecar.backends.turns import Turns
from xai_sidecar.engine.backend import Layer, Report
from xai_sidecar.engine.work import Array, Forward, Kind
from xai_sidecar.errors import ConfigError, PreconditionError

_ON_DEMAND_KEPT = 8
"""Layers loaded on demand that are kept; the least recently used one is dropped."""

_LEAST_PROBES = 3

_LEAST_COMPARED = 2
"""Inputs that a program is compared on at least, since a faulty one may repeat its first answer."""


class GraphBackend:
    """A classifier in an ONNX file as a `Backend`.

    Args:
        source: What to load.

    Attributes:
        source: As given.

    Raises:
        ConfigError: The file does not exist, is no classifier, or does not accept the configured input; or the engine
            or device is not there.
    """

    compiling = False
    unready = ""

    def __init__(self, source: GraphSource) -> None:
        self.source = source
        cache = EngineCache(source.cache) if source.cache else None
        engines = engines_for(source.device, cache, source.forward_engine, source.calls)
        self.device = source.device
        self.concurrency = source.calls
        self.reduced_precision = reduced_precision(engines)
        self.hang_is_fatal = not source.device.startswith("cpu")
        digests = GraphDigests()
        self._turns = Turns()  # of what is timed, and of what runs beside
        self._plain = Reference(self._turns)
        self._digests = digests
        self._engines = engines
        self._early = EarlyLoads()
        self._reference = KeptRuns(self._plain, cache, digests)
        sizes = (*source.batch_sizes, *source.gradient_batch_sizes)
        self._probes = probe_inputs(source, max(_LEAST_PROBES, *sizes))
        self._classifier = RestingClassifier(source, partial(load, source, self._probes, self._reference, self._begin))
        self._kept = KeptStart(source, cache, engines)
        known = self._kept.found()
        self._is_first = known is None  # nothing is known of the file from earlier starts
        self._found = known or self._find()
        self.engine = ""
        self.engine_note = self._found.note
        self.version = self._found.version
        self.weights = self._found.weights
        self.weights_warning = ""
        self.class_count = self._found.class_count
        self.layers: Mapping[str, Layer] = self._found.layers.spatial
        self.refused_layers: Mapping[str, str] = self._found.layers.refused
        self.default_layer = self._found.default_layer
        self.ood = ood_training(source.ood, self.version)
        self._graphs = KindGraphs(lambda: self._loaded().classifier)
        self._maker = Maker(
            self._graphs,
            engines,
            self.class_count,
            self._found.rows,
            source.threads,
            self._reference,
            cache,
            digests,
            self._turns,
            early=self._early,
        )
        self._programs: OrderedDict[Kind, KindProgram] = OrderedDict()
        self._costs: dict[Kind, dict[int, float]] = {}
        self._warmed: set[Kind] = set()
        self._refused: dict[Kind, str] = {}

    # ---------------------------------------------------------------------------------------- the Backend protocol

    def warm_up(self, kinds: list[Kind], report: Report) -> dict[Kind, str]:
        """Loads, checks and times all kinds in all their batch sizes; see `Backend.warm_up`."""
        wanted = list(dict.fromkeys(map(same_passes, kinds)))
        self._warmed |= set(wanted)
        pool = ThreadPoolExecutor(1, "reference")
        try:
            # Engines compile on one CPU, for the most part: graphs are made and run plainly beside that.
            ahead = {kind: pool.submit(self._prepare, kind) for kind in wanted if self._is_first}
            for done, kind in enumerate(wanted, start=1):
                report(f"loading and checking the {kind_text(kind)} ({done} of {len(wanted)})")
                try:
                    self._load(kind, ahead.pop(kind).result if ahead else None)
                except (PreconditionError, ConfigError) as error:
                    if kind == Forward.kind:
                        raise ConfigError(error.message, field="model.onnx") from error
                    self._refused[kind] = error.message
        finally:
            pool.shutdown(cancel_futures=True)
        self._forget()
        return {kind: self._refused[same_passes(kind)] for kind in kinds if same_passes(kind) in self._refused}

    def costs(self, kind: Kind) -> Mapping[int, float]:
        """Batch sizes and measured seconds; of a kind not loaded yet only its smallest size, assumed to take 1 s."""
        return self._costs.get(same_passes(kind)) or {self._sizes(kind)[0]: 1.0}

    def run(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs one batch; see `Backend.run`. A layer that was not warmed up is loaded first, which takes a second."""
        same = same_passes(kind)
        if same not in self._programs:
            self._load_on_demand(same)
        program = self._programs[same]
        self._programs.move_to_end(same)
        return run_passes(kind, rows, program, self.source.layout, self._found.layers.spatial, self.source.ood)

    def close(self) -> None:
        """Drops the programs."""
        self._programs.clear()
        self._costs.clear()

    # ---------------------------------------------------------------------------------------- loading

    def _begin(self, classifier: Traceable) -> None:
        """Has engines load the passes while the layers are looked for, where programs for any batch size are wanted."""
        rows = classifier.traced.shapes[classifier.input][0]
        if self._is_first and rows is None and len(self.source.batch_sizes) > 1:
            model = as_model(classifier.graph, self._digests(classifier.graph))
            whole = [engine for engine in undivided(self._engines) if not engine.missing()]
            self._early.start(model, whole, self.source.threads)

    def _find(self) -> Found:
        """Finds out what there is to know of the classifier."""
        found = self._classifier().found
        self._kept.keep_found(found)
        return found

    def _loaded(self) -> Loaded:
        loaded = self._classifier()
        if loaded.found.version != self.version:
            raise ConfigError("The file is another one than at the start. Start anew.", field="model.onnx")
        return loaded

    def _load(self, kind: Kind, prepared: Callable[[], Prepared] | None = None) -> None:
        """Loads the program of a kind, or makes and checks it, of what is prepared for that if anything is."""
        rows = self._rows(kind)
        program = self._kept.program(kind, rows, self._found, self._maker.shared)
        if program is None:
            program = self._make(prepared() if prepared else self._prepare(kind), rows)
        else:
            self._maker.knows(kind, program.choice)
        with self._turns:
            self._costs[kind] = costs(program, self._sizes(kind), rows)
        self._programs[kind] = program
        if kind == Forward.kind:
            self.engine = program.choice.engine
        # A list of them, since batches may be run meanwhile, which changes their order.
        on_demand = [known for known in list(self._programs) if known not in self._warmed]
        for old in on_demand[:-_ON_DEMAND_KEPT]:
            del self._programs[old], self._costs[old]

    def _prepare(self, kind: Kind) -> Prepared:
        """Makes the graph of a kind, and checks that it is derived rightly; any thread may call it."""
        rows = self._rows(kind)
        prepared = self._maker.prepare(kind, rows)
        if kind.name.endswith("gradient") and not kind.relu_rule:
            check_gradient(prepared, rows, self._loaded(), self._reference)
        return prepared

    def _make(self, prepared: Prepared, rows: tuple[Array, ...]) -> KindProgram:
        """Makes the program of a kind, compared with what it has to give."""
        kind = prepared.kind
        try:
            program = self._maker.load(prepared, self._sizes(kind))
            if kind.precision:
                with self._turns:
                    check_gain(kind, program, self._programs.get(replace(kind, precision="")), rows)
        except PreconditionError as error:
            if kind.precision:
                self._kept.keep_refused(kind, error.message)
            raise
        self._kept.keep_program(program)
        return program

    def _rows(self, kind: Kind) -> tuple[Array, ...]:
        return probe_rows(kind, self._probes[: max(_LEAST_COMPARED, *self._sizes(kind))], self.class_count)

    def _load_on_demand(self, kind: Kind) -> None:
        if kind not in self._refused:
            self.compiling = True
            try:
                self._load(kind)
            except (PreconditionError, ConfigError) as error:
                self._refused[kind] = error.message
            finally:
                self.compiling = False
                self._forget()
        if kind in self._refused:
            raise PreconditionError(f"{self._refused[kind]} Ask for another layer.")

    def _forget(self) -> None:
        """Lets go of what programs were compared with: from now on they only serve."""
        self._classifier.rest()
        self._plain.forget()
        self._digests.forget()
        self._graphs.forget()
        self._early.forget()
        for program in list(self._programs.values()):
            program.forget()

    def _sizes(self, kind: Kind) -> tuple[int, ...]:
        return self.source.gradient_batch_sizes if kind.name.endswith("gradient") else self.source.batch_sizes
