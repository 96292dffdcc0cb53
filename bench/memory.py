"""What explanations take of a server's memory: a long one at its peak, and many in a row."""

from __future__ import annotations

from pathlib import Path

from bench import models
from bench.figure import Figure
from bench.server import served
from xai_client import Client, Explain
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.paths import cache_folder

_COUNT = 200
_SETTLED = 50
_MEGABYTE = 2**20
_SMALL = {"rise": {"masks": 64}, "rise_plus": {"masks": 64}, "occlusion": {"window_size": 56, "stride": 56}}
_FLAT_MEGABYTES = 16.0
"""What a heap may wander: some pictures' worth of fragments."""


def figures() -> list[Figure]:
    """In MB, on EfficientNet-Lite0."""
    found = []
    with (
        models.sample_config(cache_folder() / "compiled", ood=True) as (_, path),
        served(path) as (address, _, pid),
        Client(address, timeout=600) as client,
    ):
        picture = models.photograph()
        client.predict(picture, explain=["gradcam", Explain("rise", masks=64)])
        idle = _memory(pid, "VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        client.predict(picture, explain=[Explain("rise", masks=4000, seed=1)])
        peak = _memory(pid, "VmHWM")
        note = f"idle {idle:.0f}, peak {peak:.0f} MB; EfficientNet-Lite0"
        found.append(Figure("peak memory of a 4,000-mask RISE over idle", peak - idle, "MB", 300, note))
        for name in installed_explainers():
            asked = Explain(name, **_SMALL.get(name, {}))
            memory = []
            for _ in range(_COUNT + _SETTLED):
                client.predict(picture, explain=[asked])
                memory.append(_memory(pid, "VmRSS"))
            grown = memory[-1] - memory[_SETTLED - 1]
            note = f"from {memory[_SETTLED - 1]:.0f} to {memory[-1]:.0f} MB, after {_SETTLED} to settle"
            found.append(Figure(f"memory grown over {_COUNT} of {name}", grown, "MB", _FLAT_MEGABYTES, note))
    return found


def _memory(pid: int, what: str) -> float:
    """A line of a process's status, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024 / _MEGABYTE
    raise RuntimeError(f"there is no {what}")
