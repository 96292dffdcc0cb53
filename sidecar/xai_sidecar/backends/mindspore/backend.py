"""A MindSpore net as a backend: compiled programs of fixed batch sizes, checked against the net itself."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xai_sidecar.backends.mindspore import compile_cache
from xai_sidecar.backends.mindspore.device import select_device
from xai_sidecar.backends.mindspore.layers import default_layer, layer_gradients, layer_output, trace_layers
from xai_sidecar.backends.mindspore.loading import load_net, told
from xai_sidecar.backends.mindspore.programs import (
    Program,
    compiled_graphs,
    forward_program,
    input_gradient_program,
    layer_gradient_program,
    release_graphs,
)
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.surgery import shared_copy, tapped_copy
from xai_sidecar.engine.backend import Layer, Report
from xai_sidecar.engine.work import Array, Forward, InputGradient, Kind
from xai_sidecar.errors import ConfigError, PreconditionError

_LOGIT_TOLERANCE = 1e-3
"""How far compiled logits may lie from the net's own: norm of the difference over norm of the logits. Rounding makes
some 1e-6; a graph that belongs to another net is off by its whole size."""

_GRADIENT_TOLERANCE = 2e-2
"""The same for gradients and layers' outputs, where rounding may tip a ReLU over."""

_TIMED_RUNS = 3
_ON_DEMAND_KEPT = 8
"""Layers compiled on demand that are kept; the least recently used one goes."""


@dataclass(frozen=True)
class ModelSource:
    """What to load, where to.

    Attributes:
        factory: ``module:callable`` returning a cell.
        arguments: Its keyword arguments.
        checkpoint: Weights; None keeps the factory's own.
        device: "cpu", "gpu" or "ascend", optionally with ":index".
        layout: Axes of the net's input, "nchw" or "nhwc".
        channels: Channels of the input.
        height: Rows of the input.
        width: Columns of the input.
        batch_sizes: Batch sizes of forward passes.
        gradient_batch_sizes: Batch sizes of passes with a gradient.
        cache: Folder of the compile cache; None for none.
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    device: str = "cpu"
    layout: str = "nchw"
    channels: int = 3
    height: int = 224
    width: int = 224
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8)
    gradient_batch_sizes: tuple[int, ...] = (1, 4)
    cache: Path | None = None


class MindSporeBackend:
    """Implements `Backend`.

    Args:
        source: What to load.
        net: A net to serve instead of the one that `source.factory` makes. It is not changed.

    Raises:
        ConfigError: The device, the factory or the checkpoint is not there or not right, or the net does not take the
            configured input.
    """

    def __init__(self, source: ModelSource, net: nn.Cell | None = None) -> None:
        select_device(source.device)
        self._source = source
        own = net if net is not None else load_net(source.factory, source.arguments, source.checkpoint)
        select_device(source.device)  # again, should the factory have chosen another one
        self._net = shared_copy(own)
        self._example = self._probe(1)
        self._expected = self._try()
        self.device = source.device
        self.engine = f"mindspore {ms.__version__}"
        self.class_count = int(self._expected.shape[1])
        self._spatial = trace_layers(self._net, self._example, source.height, source.width, source.layout)
        self.layers: Mapping[str, Layer] = self._spatial
        self.default_layer = default_layer(self._net, self._spatial, self._example, self.class_count)
        self._fingerprint = compile_cache.fingerprint(
            self._net, source.factory, source.arguments, source.layout, self._example.shape, source.device
        )
        self.version = self._version()
        self._programs: OrderedDict[Kind, Program] = OrderedDict()
        self._costs: dict[Kind, dict[int, float]] = {}
        self._warmed: set[Kind] = set()
        self._refused: dict[Kind, str] = {}
        self._graphs: dict[Kind, frozenset[str]] = {}

    # ---------------------------------------------------------------------------------------- the Backend protocol

    def warm_up(self, kinds: list[Kind], report: Report) -> dict[Kind, str]:
        """Compiles, checks and times all kinds in all their batch sizes; see `Backend.warm_up`."""
        source = self._source
        self._warmed = set(kinds)
        sizes = (source.batch_sizes, source.gradient_batch_sizes, [str(kind) for kind in kinds])
        key = hashlib.sha256(repr((self._fingerprint, sizes)).encode()).hexdigest()[:20]
        with compile_cache.compile_cache(source.cache, key, report) as warm:
            failed = self._compile_all(kinds, "loading compiled" if warm else "compiling", report)
        wrong = [error.message for error in failed.values() if isinstance(error, _WrongOutputError)]
        if wrong and warm and source.cache is not None:
            report(f"discarding the compile cache: {wrong[0]}")
            compile_cache.discard(source.cache, key)
            self._drop(*self._programs)
            failed = self._compile_all(kinds, "compiling", report)
        for kind, error in failed.items():
            if kind == Forward.kind:
                raise error
            self._drop(kind)
        return {kind: error.message for kind, error in failed.items()}

    def costs(self, kind: Kind) -> Mapping[int, float]:
        """Batch sizes and measured seconds; a kind not compiled yet has its smallest size only, at a guess."""
        return self._costs.get(kind) or {self._sizes(kind)[0]: 1.0}

    def run(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """One launch; see `Backend.run`. A layer that was not warmed up is compiled now, which takes seconds."""
        if kind not in self._costs:
            self._compile_on_demand(kind)
        outputs = self._program(kind)((self._to_layout(rows[0]), *rows[1:]))
        if kind.name == "input_gradient":
            return (self._from_layout(outputs[0]), *outputs[1:])
        if kind.name == "layer_gradient":
            to_nchw = self._spatial[kind.layer].to_nchw
            return (to_nchw(outputs[0]), to_nchw(outputs[1]), *outputs[2:])
        return outputs

    def close(self) -> None:
        """Drops the programs."""
        self._drop(*self._programs)

    # ---------------------------------------------------------------------------------------- start

    def _probe(self, size: int) -> Array:
        """Inputs in the net's layout that are the same in every process."""
        source = self._source
        shape = (size, source.channels, source.height, source.width)
        return self._to_layout(np.random.default_rng(0).standard_normal(shape).astype(np.float32))

    def _try(self) -> Array:
        """Runs the net once; its logits."""
        source = self._source
        try:
            logits = self._net(ms.Tensor(self._example))
        except Exception as error:
            raise ConfigError(
                f"the net does not take an input of shape {self._example.shape} ({source.layout}): {told(error)}. "
                "Correct model.input.size, channels or layout.",
                field="model.input",
            ) from error
        if not isinstance(logits, ms.Tensor) or logits.ndim != 2 or len(logits) != 1:
            got = f"shape {tuple(logits.shape)}" if isinstance(logits, ms.Tensor) else type(logits).__name__
            raise ConfigError(
                f"the net returned {got} for one picture where logits of shape (1, classes) were expected. "
                "Name a factory whose cell returns only the logits.",
                field="model.factory",
            )
        return logits.asnumpy()  # type: ignore[no-any-return]

    def _version(self) -> str:
        digest = hashlib.sha256(self._fingerprint.encode())
        for parameter in self._net.get_parameters():
            digest.update(parameter.name.encode())
            digest.update(parameter.asnumpy().tobytes())
        return digest.hexdigest()[:12]

    def _compile_all(self, kinds: list[Kind], verb: str, report: Report) -> dict[Kind, ConfigError]:
        """Compiles all sizes of all kinds; those that cannot be, and why."""
        steps = [(kind, size) for kind in kinds for size in self._sizes(kind)]
        failed: dict[Kind, ConfigError] = {}
        for done, (kind, size) in enumerate(steps, start=1):
            if kind in failed:
                continue
            report(f"{verb} {_called(kind)}, batch size {size} ({done} of {len(steps)})")
            try:
                self._compile(kind, size)
            except ConfigError as error:
                failed[kind] = error
        return failed

    def _compile(self, kind: Kind, size: int) -> None:
        """Compiles one size of a kind, checks and times it. Size 1 comes first: the others are checked against it."""
        rows = self._probe_rows(kind, size)
        before = compiled_graphs()
        try:
            program = self._program(kind)
            outputs = program(rows)
            expected = self._by_the_net(kind) if size == 1 else self._one_by_one(program, rows)
        except Exception as error:
            raise ConfigError(
                f"compiling the {_called(kind)} at batch size {size} failed: {told(error)}", field="model.factory"
            ) from error
        finally:
            self._graphs[kind] = self._graphs.get(kind, frozenset()) | (compiled_graphs() - before)
        for output, right in zip(outputs, expected, strict=True):
            tolerance = _LOGIT_TOLERANCE if output is outputs[-1] else _GRADIENT_TOLERANCE
            _check(output, right, tolerance, f"{_called(kind)} at batch size {size}")
        seconds = []
        for _ in range(_TIMED_RUNS):
            started = time.perf_counter()
            program(rows)
            seconds.append(time.perf_counter() - started)
        self._costs.setdefault(kind, {})[size] = statistics.median(seconds)

    def _compile_on_demand(self, kind: Kind) -> None:
        if kind not in self._refused:
            try:
                self._compile(kind, self._sizes(kind)[0])
            except ConfigError as error:
                self._drop(kind)
                self._refused[kind] = error.message
        if kind in self._refused:
            raise PreconditionError(f"{self._refused[kind]} Ask for another layer.")

    def _probe_rows(self, kind: Kind, size: int) -> tuple[Array, ...]:
        """Inputs, and where the kind wants them targets, all different."""
        inputs = self._probe(size)
        return (inputs,) if kind == Forward.kind else (inputs, np.arange(size, dtype=np.int32) % self.class_count)

    def _by_the_net(self, kind: Kind) -> tuple[Array, ...]:
        """What a kind's program must give for the first probe, as the net itself computes it, uncompiled."""
        if kind == Forward.kind:
            return (self._expected,)
        first_class = np.zeros((1, self.class_count), np.float32)
        first_class[0, 0] = 1
        if kind == InputGradient.kind:
            derive = ms.grad(lambda x: (self._net(x) * ms.Tensor(first_class)).sum())
            return derive(ms.Tensor(self._example)).asnumpy(), self._expected
        layer = self._spatial[kind.layer]
        output = layer_output(self._net, layer, self._example)
        (gradient,) = layer_gradients(self._net, [layer], self._example, first_class)
        return output, gradient, self._expected

    @staticmethod
    def _one_by_one(program: Program, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """The program's outputs for each row on its own."""
        alone = [program(tuple(array[i : i + 1] for array in rows)) for i in range(len(rows[0]))]
        return tuple(np.concatenate(column) for column in zip(*alone, strict=True))

    # ---------------------------------------------------------------------------------------- programs

    def _sizes(self, kind: Kind) -> tuple[int, ...]:
        return self._source.batch_sizes if kind.name == "forward" else self._source.gradient_batch_sizes

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
        if kind.name == "forward":
            return forward_program(self._net)
        if kind.name == "input_gradient":
            return input_gradient_program(self._net, self.class_count)
        if kind.name == "layer_gradient":
            layer = dict(self._net.cells_and_names())[kind.layer]
            return layer_gradient_program(*tapped_copy(self._net, layer), self.class_count)
        raise ValueError(f"there is no program for {kind}")

    def _to_layout(self, inputs: Array) -> Array:
        return np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)) if self._source.layout == "nhwc" else inputs

    def _from_layout(self, gradients: Array) -> Array:
        return gradients.transpose(0, 3, 1, 2) if self._source.layout == "nhwc" else gradients


class _WrongOutputError(ConfigError):
    """A compiled program computes something else than the net."""


def _called(kind: Kind) -> str:
    return kind.name.replace("_", " ") + (f" of {kind.layer}" if kind.layer else "")


def _check(output: Array, expected: Array, tolerance: float, what: str) -> None:
    """Compares row by row, so that a row that only gets its neighbour's answer shows.

    Raises:
        _WrongOutputError: They differ.
    """
    if output.shape != expected.shape:
        raise _WrongOutputError(
            f"the compiled {what} gave shape {output.shape}, not {expected.shape}.", field="model.factory"
        )
    size = len(output)
    difference = np.linalg.norm((output - expected).reshape(size, -1).astype(np.float64), axis=1)
    allowed = tolerance * np.linalg.norm(expected.reshape(size, -1).astype(np.float64), axis=1)
    # Not "difference > allowed": NaN must fail, too.
    if not (difference <= allowed).all():
        row = int(np.argmax(~(difference <= allowed)))
        raise _WrongOutputError(
            f"the compiled {what} differs from the net's own by {difference[row] / max(allowed[row], 1e-30):.3g} times "
            f"what rounding explains, in row {row}. The net cannot be served so on this device.",
            field="model.factory",
        )
