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
from xai_sidecar.backends.mindspore.layers import default_layer, trace_layers
from xai_sidecar.backends.mindspore.loading import load_net
from xai_sidecar.backends.mindspore.programs import (
    Program,
    forward_program,
    input_gradient_program,
    layer_gradient_program,
)
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.surgery import shared_copy, tapped_copy
from xai_sidecar.engine.backend import Layer, Report
from xai_sidecar.engine.work import Array, Kind
from xai_sidecar.errors import ConfigError

_TOLERANCE = 1e-3
"""How far a compiled output may lie from the net's own, relative to the largest logit (or to 1 if that is smaller).
Rounding differs by some 1e-6; a graph that belongs to another net differs by its whole size."""

_TIMED_RUNS = 3
_DISTANT_LAYERS = 8
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
        self._own = net if net is not None else load_net(source.factory, source.arguments, source.checkpoint)
        self._net = shared_copy(self._own)
        self._example = self._probe(1)
        self.device = source.device
        self.engine = f"mindspore {ms.__version__}"
        self.class_count = self._try()
        traced = trace_layers(self._net, self._example, source.height, source.width)
        self._spatial = traced.layers
        self.layers: Mapping[str, Layer] = traced.layers
        self.default_layer = default_layer(self._net, traced.layers, self._example, self.class_count)
        self.version = self._version()
        self._programs: OrderedDict[Kind, Program] = OrderedDict()
        self._costs: dict[Kind, dict[int, float]] = {}

    # ---------------------------------------------------------------------------------------- the Backend protocol

    def warm_up(self, kinds: list[Kind], report: Report) -> None:
        """Compiles, checks and times all kinds in all their batch sizes; see `Backend.warm_up`."""
        source = self._source
        shape = (source.layout, source.channels, source.height, source.width, source.device)
        key = compile_cache.fingerprint(
            self._net, shape, source.batch_sizes, source.gradient_batch_sizes, [str(kind) for kind in kinds]
        )
        wrong = None
        with compile_cache.compile_cache(source.cache, key) as warm:
            try:
                self._compile_all(kinds, "loading compiled" if warm else "compiling", report)
            except _WrongOutputError as error:
                if not warm:
                    raise
                wrong = error
        if wrong is not None and source.cache is not None:
            report(f"discarding the compile cache: {wrong.message}")
            compile_cache.discard(source.cache, key)
            self._programs.clear()
            self._compile_all(kinds, "compiling", report)

    def costs(self, kind: Kind) -> Mapping[int, float]:
        """Batch sizes and measured seconds; a kind not compiled yet has its smallest size only, at a guess."""
        return self._costs.get(kind) or {self._sizes(kind)[0]: 1.0}

    def run(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """One launch; see `Backend.run`. A layer that was not warmed up is compiled now, which takes seconds."""
        outputs = self._program(kind)((self._to_layout(rows[0]), *rows[1:]))
        if kind.name == "input_gradient":
            return (self._from_layout(outputs[0]), *outputs[1:])
        if kind.name == "layer_gradient":
            to_nchw = self._spatial[kind.layer].to_nchw
            return (to_nchw(outputs[0]), to_nchw(outputs[1]), *outputs[2:])
        return outputs

    def close(self) -> None:
        """Drops the programs and the net."""
        self._programs.clear()

    # ---------------------------------------------------------------------------------------- start

    def _probe(self, size: int) -> Array:
        """Inputs in the net's layout that are the same in every process."""
        source = self._source
        shape = (size, source.channels, source.height, source.width)
        return self._to_layout(np.random.default_rng(0).standard_normal(shape).astype(np.float32))

    def _try(self) -> int:
        """Runs the net once; the number of its classes."""
        source = self._source
        try:
            logits = self._net(ms.Tensor(self._example))
        except Exception as error:
            first_line = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"the net does not take an input of shape {self._example.shape} ({source.layout}): {first_line}. "
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
        self._expected = logits.asnumpy()
        return int(logits.shape[1])

    def _version(self) -> str:
        digest = hashlib.sha256(repr((compile_cache.structure(self._net), self._example.shape)).encode())
        for parameter in self._net.get_parameters():
            digest.update(parameter.name.encode())
            digest.update(parameter.asnumpy().tobytes())
        return digest.hexdigest()[:12]

    def _compile_all(self, kinds: list[Kind], verb: str, report: Report) -> None:
        total = sum(len(self._sizes(kind)) for kind in kinds)
        done = 0
        for kind in kinds:
            for size in self._sizes(kind):
                done += 1
                layer = f" of {kind.layer}" if kind.layer else ""
                report(f"{verb} {kind.name.replace('_', ' ')}{layer}, batch size {size} ({done} of {total})")
                self._compile(kind, size)

    def _compile(self, kind: Kind, size: int) -> None:
        rows: tuple[Array, ...] = (self._probe(size),)
        if kind.name != "forward":
            rows = (*rows, np.zeros(size, np.int32))
        program = self._program(kind)
        try:
            logits = program(rows)[-1]
        except Exception as error:
            raise ConfigError(
                f"compiling the {kind.name} of the net at batch size {size} failed: {str(error).strip()[:500]}",
                field="model.factory",
            ) from error
        self._check(kind, size, logits)
        seconds = []
        for _ in range(_TIMED_RUNS):
            started = time.perf_counter()
            program(rows)
            seconds.append(time.perf_counter() - started)
        self._costs.setdefault(kind, {})[size] = statistics.median(seconds)

    def _check(self, kind: Kind, size: int, logits: Array) -> None:
        """A compiled program must say of the first input what the net itself says, and differ where inputs differ."""
        if logits.shape != (size, self.class_count):
            raise _WrongOutputError(kind, size, f"logits of shape {logits.shape}, not {(size, self.class_count)}")
        scale = max(1.0, float(np.abs(self._expected).max()))
        difference = float(np.abs(logits[0] - self._expected[0]).max())
        # Not "difference > …": NaN must fail, too.
        if not difference <= _TOLERANCE * scale:
            raise _WrongOutputError(kind, size, f"logits that differ by {difference:.3g} from the net's own")

    # ---------------------------------------------------------------------------------------- programs

    def _sizes(self, kind: Kind) -> tuple[int, ...]:
        return self._source.batch_sizes if kind.name == "forward" else self._source.gradient_batch_sizes

    def _program(self, kind: Kind) -> Program:
        program = self._programs.get(kind)
        if program is None:
            program = self._programs[kind] = self._make_program(kind)
            on_demand = [known for known in self._programs if known.layer and known not in self._costs]
            for known in on_demand[:-_DISTANT_LAYERS]:
                del self._programs[known]
        self._programs.move_to_end(kind)
        return program

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

    def __init__(self, kind: Kind, size: int, what: str) -> None:
        super().__init__(
            f"compiled, the {kind.name} at batch size {size} gave {what}. The net cannot be served on this device.",
            field="model.factory",
        )
