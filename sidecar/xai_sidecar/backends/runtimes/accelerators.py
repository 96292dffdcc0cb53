"""Runs ONNX graphs with ONNX Runtime on devices: CUDA and TensorRT on NVIDIA's, CANN on Ascend.

A session whose provider cannot be used takes the CPU without a word, and the reason goes to standard error. So the
provider's library is loaded by itself first, which names the library that is missing, and every session is asked what
it runs on.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xai_sidecar.backends.runtimes.onnxruntime import OnnxProgram, runtime, small_graph
from xai_sidecar.backends.runtimes.program import EngineError, Model, Precision, Program, one_line, read_by


@dataclass(frozen=True)
class Provider:
    """One of ONNX Runtime's providers.

    Attributes:
        name: ONNX Runtime's name of it.
        engine: Its name as an engine.
        package: What to install, as pip takes it.
        library: The library that has it.
        precisions: What it computes in.
        options: Its options for a precision, besides the device.
        helpers: Providers on the same device, of what it cannot run itself.
    """

    name: str
    engine: str
    package: str
    library: str
    precisions: tuple[Precision, ...]
    options: Callable[[Precision], Mapping[str, str]]
    helpers: tuple[Provider, ...] = ()


CUDA = Provider(
    "CUDAExecutionProvider",
    "onnxruntime-cuda",
    "onnxruntime-gpu[cuda,cudnn]",
    "libonnxruntime_providers_cuda.so",
    ("float32",),
    # By default float32 would be TF32, which has the mantissa of float16.
    lambda precision: {"use_tf32": "0"},
)
TENSORRT = Provider(
    "TensorrtExecutionProvider",
    "onnxruntime-tensorrt",
    "onnxruntime-gpu[cuda,cudnn] and tensorrt",
    "libonnxruntime_providers_tensorrt.so",
    ("float32", "float16", "bfloat16"),
    lambda precision: {
        "trt_fp16_enable": str(int(precision == "float16")),
        "trt_bf16_enable": str(int(precision == "bfloat16")),
    },
    (CUDA,),
)
CANN = Provider(
    "CANNExecutionProvider",
    "onnxruntime-cann",
    "onnxruntime-cann",
    "libonnxruntime_providers_cann.so",
    ("float32", "float16"),
    # By default everything would be float16.
    lambda precision: {"precision_mode": "force_fp16" if precision == "float16" else "must_keep_origin_dtype"},
)

_CPU: tuple[str, Mapping[str, str]] = ("CPUExecutionProvider", {})  # for shapes, and what else no device runs


class OnnxRuntimeOnDevice:
    """ONNX Runtime on a device as an `Engine`.

    Args:
        provider: What runs there.
        index: Which of the devices.
    """

    fixed_up_to = 0

    def __init__(self, provider: Provider, index: int = 0) -> None:
        self.name = provider.engine
        self.precisions = provider.precisions
        self._provider = provider
        self._index = index

    @property
    def version(self) -> str:
        """ONNX Runtime's version."""
        return str(runtime().__version__)

    def missing(self) -> str | None:
        """Why the device cannot be used; see `Engine.missing`."""
        return self._missing

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
            raise EngineError(f"{self.name} has no {precision}")
        try:
            program = OnnxProgram(read_by(model), threads, self._providers(precision))
        except Exception as error:  # ONNX Runtime's have no common base
            raise EngineError(one_line(error)) from error
        if self._provider.name not in program.providers:
            raise EngineError(f"ONNX Runtime took {program.providers[0]} in place of the {self._provider.name}")
        return program

    def settle(self, program: Program) -> Program:
        """It, as it was loaded."""
        return program

    @cached_property
    def _missing(self) -> str | None:
        provider = self._provider
        # TensorRT has no option for it. It is read when the device is used first.
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
        try:
            version, built = self.version, runtime().get_available_providers()
        except ImportError as error:
            return f"onnxruntime cannot be imported: {error}. Install {provider.package}"
        if provider.name not in built:
            return f"onnxruntime {version} has no {provider.name}: install {provider.package} in its place"
        if reason := _not_loaded(provider.library):
            return f"{provider.library} of onnxruntime {version} cannot be loaded: {reason}. Install {provider.package}"
        return self._not_run()

    def _not_run(self) -> str | None:
        """Why no graph runs on the device, tried with a small one."""
        try:
            program = OnnxProgram(small_graph(), 1, self._providers("float32"))
        except Exception as error:  # ONNX Runtime's have no common base
            return f"the {self._provider.name} cannot use device {self._index}: {one_line(error)}"
        if self._provider.name not in program.providers:
            return f"the {self._provider.name} finds no device {self._index}"
        return None

    def _providers(self, precision: Precision) -> list[tuple[str, Mapping[str, str]]]:
        wanted = (self._provider, *self._provider.helpers)
        on_device = [(each.name, {"device_id": str(self._index), **each.options(precision)}) for each in wanted]
        return [*on_device, _CPU]


def _not_loaded(library: str) -> str | None:
    """Why one of ONNX Runtime's libraries cannot be loaded, naming the one that it needs; None if it can."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
        runtime().preload_dlls()  # the libraries of NVIDIA's packages
    folder = Path(runtime().__file__).parent / "capi"
    try:
        for name in ("libonnxruntime_providers_shared.so", library):
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return None
