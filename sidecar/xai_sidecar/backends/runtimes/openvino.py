"""Runs ONNX graphs with OpenVINO, on the CPU."""

from __future__ import annotations

import importlib
import io
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from xai_sidecar.backends.runtimes.keeping import EngineCache, cache_key
from xai_sidecar.backends.runtimes.mapped import MappedFile
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

_HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_CAPABILITIES: dict[str, Precision] = {"BF16": "bfloat16", "FP16": "float16"}

_LIMIT = "ONEDNN_MAX_CPU_ISA"

_CONVERTER = "openvino.tools.ovc"


class OpenVino:
    """OpenVINO on the CPU as an `Engine`.

    A program made for one row alone takes 7 to 18 % less than one for any number of them where the net is small; for
    large nets, and for more rows, it gains nothing.

    Args:
        cache: Where compiled programs are kept; None keeps none.
        calls: Among how many calls at once a program divides its threads.
    """

    name = "openvino"
    fixed_up_to = 1

    def __init__(self, cache: EngineCache | None = None, calls: int = 1) -> None:
        self._cache = cache
        self._calls = calls

    @property
    def version(self) -> str:
        """OpenVINO's version."""
        return str(_package().__version__).partition("-")[0]

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Besides float32 what this CPU has instructions for."""
        found = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return ("float32", *(precision for name, precision in _CAPABILITIES.items() if name in found))

    def missing(self) -> str | None:
        """Why OpenVINO cannot be used; see `Engine.missing`."""
        try:
            _core()
        except ImportError as error:
            return f"openvino cannot be imported: {error}"
        except RuntimeError as error:  # no CPU plug-in, or a library that it needs
            return f"openvino does not start: {_reason(error)}"
        return None

    def load(
        self,
        model: Model,
        *,
        batch_size: int | None = None,
        precision: Precision = "float32",
        threads: int | None = None,
    ) -> OpenVinoProgram:
        """Loads a graph; see `Engine.load`."""
        if missing := self.missing():
            raise EngineError(missing)
        if precision not in self.precisions:
            raise EngineError(f"OpenVINO has no {precision} on this CPU")
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": usable_cpus() if threads is None else threads,
            # Pinned threads stay on CPUs that others use as well, and that a container may be taken off.
            "ENABLE_CPU_PINNING": False,
            **({"NUM_STREAMS": self._calls} if self._calls > 1 else {}),
        }
        key = None
        try:
            if self._cache is not None:
                key = cache_key(model, self.name, _package().__version__, batch_size, sorted(options.items()))
                if (kept := self._cache.find(key)) and (program := _kept_program(kept, options)):
                    return program
            return OpenVinoProgram(_compile(read_by(model), batch_size, options), made=(key, options))
        except Exception as error:  # OpenVINO's are RuntimeErrors for the most part
            raise EngineError(_reason(error)) from error

    def settle(self, program: Program) -> Program:
        """Keeps a program that was compiled, and has its weights in a file; see `Engine.settle`."""
        if not isinstance(program, OpenVinoProgram) or program.made is None:
            return program
        key, options = program.made
        try:
            content = program.exported()
            if self._cache is not None and key is not None:
                self._cache.keep(key, content)
            return OpenVinoProgram(*_imported(content, options))
        except Exception as error:
            raise EngineError(_reason(error)) from error


class OpenVinoProgram:
    """A graph that OpenVINO has compiled; see `Program`.

    Args:
        compiled: An `openvino.CompiledModel`.
        weights: The file that it has its weights from, if it does. It lays them out anew when it first runs rows of a
            number, and hardly looks at the file again.
        made: If it was compiled just now: what it is to be kept under, if it is, and OpenVINO's options.
    """

    def __init__(
        self,
        compiled: Any,
        weights: MappedFile | None = None,
        made: tuple[str | None, dict[str, Any]] | None = None,
    ) -> None:
        self._compiled = compiled
        self.made = made
        self.inputs = tuple(_name(port) for port in compiled.inputs)
        self.outputs = tuple(_name(port) for port in compiled.outputs)
        self._dtypes = [np.dtype(port.get_element_type().to_dtype()) for port in compiled.inputs]
        # A request serves one call at a time. As many are made as calls there are at once.
        self._idle: deque[Any] = deque()
        self._counts: set[int] = set()  # numbers of rows that have been run
        self._weights = weights  # the last attribute, and so the last one to go

    def __call__(self, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs the graph; see `Program.__call__`."""
        if len(rows) < len(self._dtypes):
            raise TypeError(f"the graph takes {len(self._dtypes)} arrays where {len(rows)} were given")
        fed = [fitted(row, dtype) for row, dtype in zip(rows, self._dtypes, strict=False)]
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        _working_memory.used(self._compiled)
        try:
            request.infer(fed, share_inputs=True, share_outputs=True)
            # Copies, since the request uses its own memory again.
            return tuple(returned(np.array(tensor.data)) for tensor in request.output_tensors)
        finally:
            self._idle.append(request)
            self._release_weights(len(fed[0]))

    def exported(self) -> bytes:
        """It as `_imported` reads it."""
        content = io.BytesIO()
        self._compiled.export_model(content)
        return content.getvalue()

    def _release_weights(self, count: int) -> None:
        if self._weights is not None and count not in self._counts:
            self._counts.add(count)
            self._weights.release()


class _WorkingMemory:
    """Takes the memory that programs compute in from all but those that ran last.

    After 32 rows of an EfficientNet-Lite0 that is 300 MB for each program. To fetch it anew costs a tenth of a run, and
    a third of one of 32 rows.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: list[weakref.ref[Any]] = []  # the last one to run comes last

    def used(self, compiled: Any) -> None:
        """Notes that a program is about to run."""
        with self._lock:
            others = [ref for ref in self._latest if ref() not in (None, compiled)]
            old, kept = others[: 1 - _KEEP_MEMORY], others[1 - _KEEP_MEMORY :]
            self._latest = [*(ref for ref in old if not _released(ref())), *kept, weakref.ref(compiled)]


def _released(compiled: Any) -> bool:
    """Has a program give its working memory back; False if it is running."""
    try:
        if compiled is not None:
            compiled.release_memory()
    except RuntimeError:
        return False
    return True


_KEEP_MEMORY = 2
"""Programs that keep their working memory: those of predictions and of the explanation that is being made."""

_working_memory = _WorkingMemory()


def _package() -> Any:
    """The openvino package; imported here since it need not be installed.

    It imports its converter, too, where it has one. That reports to Intel that it was imported, and forks the process
    for it, which a server with running threads must not be. So for the first import there is none.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault(_CONVERTER, None)  # type: ignore[arg-type]
    try:
        return importlib.import_module("openvino")
    finally:
        if sys.modules.get(_CONVERTER) is None:
            sys.modules.pop(_CONVERTER, None)


@cache
def _core() -> Any:
    core = _package().Core()
    with _unlimited():
        # Loads the plug-in, and has oneDNN in it look at the CPU.
        core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return core


@contextmanager
def _unlimited() -> Iterator[None]:
    """Hides the limit that MindSpore's copy of oneDNN needs, and this one would heed: no bfloat16, and half the speed.

    Each copy reads it once. `DNNL_MAX_CPU_ISA` still limits this one.
    """
    limit = os.environ.pop(_LIMIT, None)
    try:
        yield
    finally:
        if limit is not None:
            os.environ[_LIMIT] = limit


def _kept_program(kept: Path, options: dict[str, Any]) -> OpenVinoProgram | None:
    """A program that was kept; None if it cannot be read, and then it is thrown away."""
    try:
        return OpenVinoProgram(*_imported(kept, options))
    except RuntimeError:  # compiled anew, as if it were not there
        kept.unlink(missing_ok=True)
        return None


def _imported(exported: Path | bytes, options: dict[str, Any]) -> tuple[Any, MappedFile | None]:
    """A compiled model that was exported, with the weights in a file of its own, or in its memory where none can be."""
    try:
        weights = MappedFile(exported, exported.parent if isinstance(exported, Path) else None)
    except OSError:
        content = exported.read_bytes() if isinstance(exported, Path) else exported
        return _core().import_model(content, "CPU", options), None
    tensor = _package().Tensor(weights.bytes, shared_memory=True)
    return _core().import_model(tensor, "CPU", options), weights


def _compile(model: bytes | Path, batch_size: int | None, options: dict[str, Any]) -> Any:
    read = _core().read_model(model)
    if batch_size is not None:
        shapes = {port: port.partial_shape for port in read.inputs}
        for shape in shapes.values():
            shape[0] = batch_size
        read.reshape(shapes)
    return _core().compile_model(read, "CPU", options)


def _name(port: Any) -> str:
    """The name that an input or output has in the ONNX graph."""
    return str(port.get_any_name())


def _reason(error: Exception) -> str:
    """What one of OpenVINO's errors says, without the places in its sources that come first."""
    lines = [line.strip(" -") for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from", "Check ", "FrontEnd API"))]
    skipped = ("Model wasn't fully converted", "Summary:")
    return next((line for line in said if not line.startswith(skipped)), one_line(error))
