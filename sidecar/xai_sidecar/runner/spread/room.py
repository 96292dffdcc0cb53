"""How many workers a cluster has room for, and what each one gets of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xai_sidecar.errors import ConfigError

_ACCELERATORS = {"gpu": "GPU", "ascend": "NPU"}
"""What Ray calls the devices that `model.device` may name."""

Resources = Mapping[str, float]


@dataclass(frozen=True)
class Room:
    """What a worker gets.

    Attributes:
        count: Workers.
        cpus: CPUs for each.
        accelerator: What else it gets one of, as Ray calls it; empty for nothing.
    """

    count: int
    cpus: int
    accelerator: str = ""

    @property
    def content(self) -> str:
        """What a worker gets, in words."""
        cpus = f"{self.cpus} CPU{'' if self.cpus == 1 else 's'}"
        return f"{cpus} and a {self.accelerator}" if self.accelerator else cpus


def room_for(device: str, machines: Sequence[Resources], count: int | None) -> Room:
    """Divides a cluster among workers: one for each accelerator, or each machine where CPUs compute.

    Args:
        device: As of `model.device`.
        machines: What each machine has.
        count: Workers wanted; None for as many as said.

    Raises:
        ConfigError: The cluster has no such device; field "ray".
    """
    accelerator = _ACCELERATORS.get(device.partition(":")[0], "")
    wanted = accelerator or "CPU"
    having = [each for each in machines if each.get(wanted, 0) >= 1]
    if not having:
        raise ConfigError(
            f"no machine of the cluster has a {wanted}, and model.device is {device!r}. Name another device or another "
            "cluster.",
            field="ray",
        )
    if accelerator:
        # Beside a device, a worker draws masks and decodes pictures.
        devices = int(sum(each[wanted] for each in having))
        cpus = min(int(each.get("CPU", 0) // each[wanted]) for each in having)
        return Room(count or devices, max(cpus, 0), accelerator)
    return Room(count or len(having), cpus_each([each["CPU"] for each in having], count or len(having)))


def cpus_each(machines: Sequence[float], count: int) -> int:
    """The most CPUs, at least 1, that so many workers can have each, none of them on two machines."""
    most = int(max(machines))
    return next((cpus for cpus in range(most, 1, -1) if sum(int(each // cpus) for each in machines) >= count), 1)
