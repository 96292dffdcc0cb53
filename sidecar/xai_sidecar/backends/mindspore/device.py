"""Selects the configured device, or refuses; never falls back to another one silently."""

from __future__ import annotations

import structlog

from xai_sidecar.backends.mindspore.runtime import ms
from xai_sidecar.errors import ConfigError

_log = structlog.get_logger(__name__)

_TARGETS = {"cpu": "CPU", "gpu": "GPU", "ascend": "Ascend"}
_NEEDS = {
    "GPU": "CUDA 11.1 or 11.6 with cuDNN 8 and cuBLAS 11",
    "Ascend": "the Ascend driver and CANN",
}


def select_device(name: str, threads: int | None = None) -> None:
    """Selects the device for everything in this process.

    Args:
        name: "cpu", "gpu" or "ascend", optionally with ":index".
        threads: Number of threads of kernels on the CPU; None leaves it to MindSpore.

    Raises:
        ConfigError: There is no such device.
    """
    target, _, index = name.partition(":")
    target = _TARGETS[target]
    try:
        count = ms.hal.device_count(target)
    except (RuntimeError, ValueError):
        count = 0
    if int(index or 0) >= count:
        found = f"MindSpore finds {count} of that kind" if count else "MindSpore finds none of that kind"
        needs = f" It needs {_NEEDS[target]}." if target in _NEEDS and not count else ""
        raise ConfigError(f'there is no device {name!r}: {found}.{needs} Use device = "cpu".', field="model.device")
    ms.set_device(target, int(index or 0))
    if threads is not None:
        try:
            ms.device_context.cpu.op_tuning.threads_num(threads)
        except RuntimeError:  # can be set only once in a process
            _log.warning("threads_set_already", by="this process or the model's module", wanted=threads)
