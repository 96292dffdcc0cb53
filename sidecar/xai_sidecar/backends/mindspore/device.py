"""Choosing the device that the config asks for, or refusing; never another one in silence."""

from __future__ import annotations

from xai_sidecar.backends.mindspore.runtime import ms
from xai_sidecar.errors import ConfigError

_TARGETS = {"cpu": "CPU", "gpu": "GPU", "ascend": "Ascend"}
_NEEDS = {
    "GPU": "CUDA 11.1 or 11.6 with cuDNN 8 and cuBLAS 11",
    "Ascend": "the Ascend driver and CANN",
}


def select_device(name: str) -> None:
    """Makes a device the one that everything in this process runs on.

    Args:
        name: "cpu", "gpu" or "ascend", optionally with ":index".

    Raises:
        ConfigError: The device is not there.
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
