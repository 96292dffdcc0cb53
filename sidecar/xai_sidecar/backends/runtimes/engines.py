"""Which engines may run graphs on a device."""

from __future__ import annotations

from collections.abc import Sequence

from xai_sidecar.backends.runtimes.accelerators import CANN, CUDA, TENSORRT, OnnxRuntimeOnDevice
from xai_sidecar.backends.runtimes.in_parts import InParts
from xai_sidecar.backends.runtimes.keeping import EngineCache
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.backends.runtimes.openvino import OpenVino
from xai_sidecar.backends.runtimes.program import Engine
from xai_sidecar.cpus import usable_cpus
from xai_sidecar.errors import ConfigError

_REDUCED = ("bfloat16", "float16")
"""Precisions below float32, the preferred one first: bfloat16 has float32's range."""

_MOST_PARTS = 8
"""In how many parts a batch is run at most; on more CPUs each has several."""

_PROVIDERS = {"gpu": (TENSORRT, CUDA), "ascend": (CANN,)}


def engines_for(
    device: str, cache: EngineCache | None = None, wanted: str = "auto", calls: int = 1
) -> tuple[Engine, ...]:
    """The engines of a device, one of which at least can be used; `choosing.choose` says why another cannot.

    Args:
        device: "cpu", "gpu" or "ascend", optionally with ":index".
        cache: Where they keep what they have compiled; None keeps nothing.
        wanted: The name of the one engine to use on a CPU, or "auto" for any.
        calls: Among how many calls at once a program divides its threads on a CPU. Where that is more than one, none
            runs batches in parts.

    Raises:
        ConfigError: None of them can be used; the message says which package or library is missing.
    """
    kind, _, index = device.partition(":")
    engines: tuple[Engine, ...] = (OpenVino(cache, calls), OnnxRuntime(cache, calls))
    parts = min(usable_cpus(), _MOST_PARTS) if calls == 1 else 1
    divided = (InParts(OpenVino(cache, parts), parts), InParts(OnnxRuntime(cache, parts), parts)) if parts > 1 else ()
    # Whatever runs graphs, ONNX Runtime says what is right.
    if missing := OnnxRuntime().missing():
        raise ConfigError(f"{missing}. Run pip install 'xai-sidecar[onnx]'.", field="model.forward_engine")
    if kind != "cpu":
        engines = tuple(OnnxRuntimeOnDevice(provider, int(index or 0)) for provider in _PROVIDERS[kind])
    elif wanted != "auto":
        engines = tuple(engine for engine in engines if engine.name == wanted)
    reasons = [engine.missing() for engine in engines]
    if None not in reasons:
        raise ConfigError(
            f"Nothing runs graphs on the device {device!r}: {'; '.join(filter(None, reasons))}.", field="model.device"
        )
    return (*engines, *(each for each in divided if each.whole in {engine.name for engine in engines}))


def reduced_precision(engines: Sequence[Engine]) -> str:
    """The precision below float32 in which one of the engines gains speed on this machine; empty if none does."""
    found = {precision for engine in engines if engine.missing() is None for precision in engine.precisions}
    return next((precision for precision in _REDUCED if precision in found), "")
