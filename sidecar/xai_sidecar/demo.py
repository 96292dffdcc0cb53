"""`xai-sidecar demo`: the sample classifier served, asked through the SDK, and what came back shown."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from xai_sidecar.config import Config, parse_config
from xai_sidecar.zoo.sample import prepare_sample, sample_picture

_PICTURE = "chelsea"


def demo_config(overrides: Sequence[str], report: Callable[[str], None]) -> Config:
    """The config of the sample classifier, its weights converted if they are not yet.

    Args:
        overrides: As of `--set`.
        report: Told of what takes time.

    Raises:
        ConfigError: The extra `demo` is not installed, or an override is wrong.
    """
    files = prepare_sample(report=report)
    return parse_config(
        {
            "model": {
                "name": "efficientnet-lite0",
                "factory": "xai_sidecar.zoo.efficientnet_lite:efficientnet_lite0",
                "checkpoint": str(files.checkpoint),
                "labels": str(files.labels),
                "input": {
                    "size": 224,
                    "resize": 256,
                    "interpolation": "bicubic",
                    "mean": 127 / 255,
                    "std": 128 / 255,
                },
            },
            "server": {
                "grpc": _free("127.0.0.1", 50051),
                "http": _free("127.0.0.1", 9090),
                "log_level": "warning",
            },
        },
        overrides,
    )


def _free(host: str, port: int) -> str:
    """The address, or one with any free port where that one is taken: by a Prometheus, say."""
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return f"{host}:0"
    return f"{host}:{port}"


def ask(grpc_address: str, http_address: str, folder: Path, start_seconds: float) -> str:
    """Asks the server about a photograph of a cat; returns what it says and what to try next, for people to read.

    Args:
        grpc_address: Where gRPC is served.
        http_address: Where HTTP is served.
        folder: Where to put the overlay.
        start_seconds: How long it took until the server was ready.
    """
    from xai_client import Client

    picture = sample_picture(_PICTURE)
    with Client(grpc_address) as client:
        prediction = client.predict(picture, explain=["gradcam"], top_k=5)
    folder.mkdir(parents=True, exist_ok=True)
    overlay = folder / f"{_PICTURE}-gradcam.png"
    prediction.explanations["gradcam"].overlay(picture).save(overlay)
    classes = "\n".join(
        f"  {100 * one.probability:5.1f} %  {one.label:<20} {'█' * round(40 * one.probability)}"
        for one in prediction.classes
    )
    return f"""
Ready after {start_seconds:.1f} s. What EfficientNet-Lite0 sees in {picture.name}:

{classes}

Where it looked for {prediction.classes[0].label!r}: {overlay.resolve()}

Try next, in another terminal:
  .venv/bin/xai-client predict YOUR.jpg --explain gradcam,gradient --out . --server {grpc_address}
  .venv/bin/xai-client info --server {grpc_address}
  curl http://{http_address}/metrics"""
