"""Runs ONNX graphs with ONNX Runtime; as an engine on the CPU."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from xai_sidecar.backends.runtimes.keeping import EngineCache, cache_key
from xai_sidecar.backends.runtimes.program import (
    EngineError,
    Model,
    Precision,
    Program,
    fitted,
    one_line,
    read_by,
    returned,
)
from xai_sidecar.cpus import usable_cpus
from xai_sidecar.engine.work import Array

_FATAL = 4
"""Log level at which ONNX Runtime prints nothing: errors are raised anyway."""


_MOST_KEPT_BYTES = 1 << 30
"""Largest model whose optimised graph is kept: those of 2 GB and more cannot be written to one file."""


class OnnxRuntime:
    """ONNX Runtime on the CPU as an `Engine`. One program serves all batch sizes.

    Args:
        cache: Where optimised graphs are kept, which saves half of the time of loading; None keeps none.
        calls: Among how many calls at once a program divides its threads.
    """

    name = "onnxruntime"
    fixed_up_to = 0
    precisions: tuple[Precision, ...] = ("float32",)

    def __init__(self, cache: EngineCache | None = None, calls: int = 1) -> None:
        self._cache = cache
        self._calls = calls

    @property
    def version(self) -> str:
        """ONNX Runtime's version."""
        return str(runtime().__version__)

    def missing(self) -> str | None:
        """Why ONNX Runtime cannot be used; see `Engine.missing`."""
        try:
            runtime()
        except ImportError as error:
            return f"onnxruntime cannot be imported: {error}"
        return None

    def load(
        self,
        model: Model,
        *,
        batch_size: int | None = None,
        precision: Precision = "float32",
        threads: int | None = None,
    ) -> OnnxProgram:
        """Loads a graph for any batch size; see `Engine.load`."""
        if missing := self.missing():
            raise EngineError(missing)
        if precision not in self.precisions:
            raise EngineError(f"ONNX Runtime computes in float32 on a CPU, not in {precision}")
        if self._calls > 1:
            threads = max(1, (usable_cpus() if threads is None else threads) // self._calls)
        try:
            return self._program(model, threads)
        except Exception as error:  # ONNX Runtime's have no common base
            raise EngineError(one_line(error)) from error

    def load_unoptimised(self, model: Model, threads: int | None = None) -> OnnxProgram:
        """Loads a graph to be run as it stands, one operator after the other.

        Raises:
            EngineError: As `load`.
        """
        try:
            return OnnxProgram(read_by(model), threads, change=_as_it_stands)
        except Exception as error:  # ONNX Runtime's have no common base
            raise EngineError(one_line(error)) from error

    def _program(self, model: Model, threads: int | None) -> OnnxProgram:
        if isinstance(model, Path) or self._cache is None:
            return OnnxProgram(read_by(model), threads)
        key = cache_key(model, self.name, self.version)
        kept = self._cache.find(key)
        if kept is not None:
            try:
                return OnnxProgram(kept, threads, change=_as_it_stands)
            except Exception:  # optimised anew, as if it were not there
                kept.unlink(missing_ok=True)
        read = model if isinstance(model, bytes) else model.content
        if len(read) > _MOST_KEPT_BYTES:
            return OnnxProgram(read, threads)
        with tempfile.TemporaryDirectory(prefix="xai-sidecar-") as folder:
            optimised = Path(folder) / "optimised.onnx"
            program = OnnxProgram(read, threads, change=partial(_written_to, optimised))
            program.made = key, optimised.read_bytes()
        return program

    def settle(self, program: Program) -> Program:
        """Keeps the optimised graph of a program that was made of another; see `Engine.settle`."""
        if isinstance(program, OnnxProgram) and program.made is not None:
            if self._cache is not None:
                self._cache.keep(*program.made)
            program.made = None
        return program


class OnnxProgram:
    """A graph, ready to run on any number of rows. ONNX Runtime must be available.

    Args:
        model: A serialised model, or its path.
        threads: Number of threads, the caller's included; None for one on each usable CPU.
        providers: What runs it, with options: each provider what those before it cannot run.
        change: Changes the session's options.

    Attributes:
        providers: Names of the providers that the session has. One that cannot be used is left out without a word.
        made: The optimised graph, if it was made just now and is to be kept, and what it is kept under.

    Raises:
        Exception: One of ONNX Runtime's own: it cannot load the model.
    """

    def __init__(
        self,
        model: bytes | Path,
        threads: int | None = None,
        providers: Sequence[tuple[str, Mapping[str, str]]] = (("CPUExecutionProvider", {}),),
        change: Callable[[Any], None] = lambda options: None,
    ) -> None:
        options = session_options(threads)
        change(options)
        with _as_file(model) as path:
            # Without enable_fallback=0, a session whose provider fails tries the CPU, and prints that.
            self._session = runtime().InferenceSession(str(path), options, providers=list(providers), enable_fallback=0)
        self.made: tuple[str, bytes] | None = None
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        self.inputs = tuple(each.name for each in self._session.get_inputs())
        self.outputs = tuple(each.name for each in self._session.get_outputs())
        self._dtypes = [_dtype(each.type) for each in self._session.get_inputs()]

    def __call__(self, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs the graph; see `Program.__call__`."""
        fed = zip(self.inputs, rows, self._dtypes, strict=False)
        outputs = self._session.run(self.outputs, {name: fitted(row, dtype) for name, row, dtype in fed})
        return tuple(map(returned, outputs))


def runtime() -> Any:
    """The onnxruntime package; imported here since it need not be installed."""
    # Switches off telemetry, which onnxruntime would write to a folder of its own. It is read at import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return importlib.import_module("onnxruntime")


@contextmanager
def _as_file(model: bytes | Path) -> Iterator[Path]:
    """The path of a model; because a session keeps the bytes it was made of."""
    if isinstance(model, Path):
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="xai-sidecar-") as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(model)
        yield path


def session_options(threads: int | None = None) -> Any:
    """How sessions on a CPU run.

    Args:
        threads: Number of threads, the caller's included; None for one on each usable CPU.
    """
    options = runtime().SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = usable_cpus() if threads is None else threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait save up to a fifth of a run on idle CPUs. Where anything else runs on these
    # CPUs they double its time, and a call every 25 ms costs three times the CPU time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The arena keeps what the largest batch has needed, and no more however sizes alternate. Without it, up to two
    # fifths of the time of a large batch go into memory fetched anew. Patterns would add a plan, and in the end a
    # block of memory, for every batch size, for no gain in time.
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = False
    _share_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")  # these go with the session
    return options


@cache
def _share_arena() -> None:
    """Has all sessions of this process compute in one arena, which grows to what the largest batch of any needs.

    With arenas of their own, an EfficientNet-Lite0 takes 330 MB for each program that has run 32 rows; so 19 MB.
    """
    package = runtime()
    kind = package.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    info = package.OrtMemoryInfo("Cpu", kind, 0, package.OrtMemType.DEFAULT)
    package.create_and_register_allocator(info, None)


def shrink_arena() -> None:
    """Has the sessions' arena give back what no session is using; the next large batch fetches it anew."""
    if not _share_arena.cache_info().currsize:  # there is none
        return
    session = runtime().InferenceSession(small_graph(), session_options(1), providers=["CPUExecutionProvider"])
    options = runtime().RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    session.run(None, {"x": np.zeros((1, 1), np.float32)}, options)


def small_graph() -> bytes:
    """A graph of one ReLU, from x to y, (batch, 1) each."""
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "small", values[:1], values[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    return bytes(model.SerializeToString())


def _written_to(path: Path, options: Any) -> None:
    """Has the optimised graph written to a file. It is good for this kind of CPU alone."""
    options.optimized_model_filepath = str(path)


def _as_it_stands(options: Any) -> None:
    """Has a graph run that is optimised already."""
    options.graph_optimization_level = runtime().GraphOptimizationLevel.ORT_DISABLE_ALL


def _dtype(text: str) -> np.dtype[Any]:
    """The dtype of an input by ONNX Runtime's name of its type, such as "tensor(float)"."""
    name = text.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))
