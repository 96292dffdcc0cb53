"""Memory of a server's process: once it is ready, and when each explainer has been asked for once.

XAI_BENCH_EARLIER names a checkout of an earlier version, if it is to be compared with: its server is given the same
nets, as MindSpore cells.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bench import models
from bench.figure import Figure
from bench.resnet import Net, OnnxOperations
from bench.server import served
from xai_client import Client, Explain
from xai_sidecar.zoo.sample import sample_checkpoint

_KILOBYTE, _MEGABYTE = 2**10, 2**20
_ASKED = (
    "gradient",
    "guided_backprop",
    "deconvolution",
    "gradcam",
    Explain("occlusion", window_size=56, stride=56),
    Explain("rise", masks=64),
)
_CELLS = {
    "EfficientNet-Lite0": f'factory = "{models.SAMPLE}"\ncheckpoint = "{{checkpoint}}"',
    "ResNet-50": f'factory = "{models.RESNET}"\narguments = {{{{num_classes = 1000}}}}',
}


def figures() -> list[Figure]:
    """In MB of what is its own, and of its part of what it shares (PSS); ratios to the earlier version, if any."""
    found = []
    earlier = os.environ.get("XAI_BENCH_EARLIER")
    with tempfile.TemporaryDirectory() as folder, models.sample_config(None) as (_, sample):
        cells = {name: text.format(checkpoint=sample_checkpoint()) for name, text in _CELLS.items()}
        resnet = Path(folder) / "resnet.onnx"
        resnet.write_bytes(OnnxOperations().model(Net()))
        before = {name: _megabytes(_written(folder, text), earlier) for name, text in cells.items() if earlier}
        for title, name, path in (
            ("EfficientNet-Lite0, ONNX", "EfficientNet-Lite0", sample),
            ("ResNet-50, ONNX", "ResNet-50", _written(folder, f'onnx = "{resnet}"')),
            ("EfficientNet-Lite0, cell", "EfficientNet-Lite0", _written(folder, cells["EfficientNet-Lite0"])),
            ("ResNet-50, cell", "ResNet-50", _written(folder, cells["ResNet-50"])),
        ):
            for what, size in _megabytes(path).items():
                found.append(Figure(f"{what}, {title}", size, "MB"))
                if name in before:
                    note = f"{before[name][what]:.0f} MB earlier"
                    found.append(Figure("the same over the earlier version's", size / before[name][what], "×", 1, note))
    return found


def _written(folder: str, model: str) -> Path:
    path = Path(tempfile.mkdtemp(dir=folder)) / "sidecar.toml"
    path.write_text(
        f'[model]\nname = "net"\n{model}\ncompile_cache = false\n[model.input]\nsize = 224\n'
        '[server]\ngrpc = "127.0.0.1:0"\nhttp = "127.0.0.1:0"\n'
    )
    return path


def _megabytes(config: Path, checkout: str | None = None) -> dict[str, float]:
    """The process's memory by when it was looked at."""
    with served(config, checkout) as (address, _, pid), Client(address, timeout=600) as client:
        ready = _proportional(pid)
        for asked in _ASKED:
            client.predict(models.photograph(), explain=[asked])
        return {"memory when ready": ready, "memory after each explainer": _proportional(pid)}


def _proportional(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * _KILOBYTE / _MEGABYTE
    raise RuntimeError("there is no Pss")
