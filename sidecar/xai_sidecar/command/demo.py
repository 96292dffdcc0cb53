"""`xai-sidecar demo`: serves the sample classifier, asks it through the SDK, and shows the answer."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from xai_sidecar.backends.ood_training import train_configured
from xai_sidecar.command.sample import SAMPLE_INPUT
from xai_sidecar.config import Config, parse_config
from xai_sidecar.errors import ConfigError
from xai_sidecar.ood.head import load_head
from xai_sidecar.ood.outliers import crops
from xai_sidecar.ood.training import TrainingOptions
from xai_sidecar.paths import cache_folder
from xai_sidecar.zoo.sample import prepare_sample, sample_picture

_PICTURE = "chelsea"
_OOD_PICTURES = (
    "astronaut",
    "camera",
    "chelsea",
    "clock_motion",
    "coffee",
    "coins",
    "motorcycle_left",
    "motorcycle_right",
    "rocket",
)
_OOD_CROPS = 12
_OOD_OPTIONS = TrainingOptions(epochs=30, batch_size=32, outlier_pictures=8)


def demo_addresses() -> dict[str, str]:
    """Where the demo serves gRPC and HTTP, as keys of the config's section `server`."""
    return {"grpc": free_address(50051), "http": free_address(9090)}


def served_at(addresses: Mapping[str, str], overrides: Sequence[str]) -> str:
    """Where gRPC will be served, as the config will say once there is a classifier.

    Args:
        addresses: As from `demo_addresses`.
        overrides: As of `--set`.

    Raises:
        ConfigError: An override of the section `server` is wrong.
    """
    of_server = [each for each in overrides if each.partition("=")[0].partition(".")[0].strip() == "server"]
    variables = {name: value for name, value in os.environ.items() if name.upper().startswith("XAI_SERVER__")}
    without = {"model": {"factory": "none:none", "input": SAMPLE_INPUT}, "server": dict(addresses)}
    return parse_config(without, of_server, environment=variables).server.grpc


def demo_config(
    overrides: Sequence[str], report: Callable[[str], None], addresses: Mapping[str, str] | None = None
) -> Config:
    """The config of the sample classifier, its graph made if it is not there yet.

    Args:
        overrides: As of `--set`.
        report: Called with a line before each step that takes time.
        addresses: As from `demo_addresses`, where that has been called.

    Raises:
        ConfigError: The extra `demo` is not installed, or an override is wrong.
    """
    files = prepare_sample(report=report)
    return parse_config(
        {
            "model": {
                "name": "efficientnet-lite0",
                "onnx": str(files.onnx),
                "labels": str(files.labels),
                "input": SAMPLE_INPUT,
            },
            "server": {**(addresses or demo_addresses()), "log_level": "warning"},
            # Nobody else is there to be disturbed.
            "evaluator": {
                "sample_rate": 1.0,
                "interval_seconds": 2.0,
                "store": "sqlite://",
                "device_share": 1.0,
                "keep_pictures": True,  # photographs that scikit-image ships
            },
        },
        overrides,
        environment=os.environ,
    )


def with_ood(config: Config, report: Callable[[str], None]) -> Config:
    """The same with an OoD net, trained unless that is done already.

    It learns from crops of a handful of photographs what the classifier itself says of them: enough to see OoD scores
    and RISEPlus at work, far too little to rely on.

    Args:
        config: As from `demo_config`.
        report: Called with a line before each step that takes time.

    Raises:
        ConfigError: The classifier cannot be loaded, or the net not be kept.
    """
    graph = config.model.onnx
    if graph is None or graph.parent != cache_folder() or config.ood.checkpoint is not None:
        return config
    path = graph.with_name(f"{graph.stem}-ood-2.safetensors")
    done = config.model_copy(update={"ood": config.ood.model_copy(update={"checkpoint": path})})
    try:
        load_head(path)
        return done
    except ConfigError:  # there is none yet, or it is damaged
        report(f"Training a small OoD net on {_OOD_CROPS} crops of each of {len(_OOD_PICTURES)} photographs")
    with tempfile.TemporaryDirectory() as folder:
        for name in _OOD_PICTURES:
            with Image.open(sample_picture(name)) as picture:
                for index, crop in enumerate(crops(picture.convert("RGB"), _OOD_CROPS, seed=0)):
                    crop.save(Path(folder) / f"{name}-{index}.png")
        head = train_configured(config, Path(folder), path, _OOD_OPTIONS, report, lambda step: None)
    scores = ", ".join(f"{value:.2f} against {kind}" for kind, value in head.training.auroc.items())
    report(f"It is a toy: {head.training.sample_count} crops. AUROC {scores}")
    return done


def free_address(port: int) -> str:
    """An address of this machine's loopback: that port, or a free one where it is taken, as by a Prometheus."""
    for each in (port, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", each)) as listening:
            return f"127.0.0.1:{listening.getsockname()[1]}"
    return "127.0.0.1:0"


def ask(grpc_address: str, folder: Path, start_seconds: float) -> tuple[str, str]:
    """Asks the server about a photograph of a cat.

    Args:
        grpc_address: Where gRPC is served.
        folder: Where to put the overlay.
        start_seconds: How long it took until the server was ready.

    Returns:
        What it says, for people to read, and the id of the request.
    """
    from xai_client import Client

    picture = sample_picture(_PICTURE)
    with Client(grpc_address, tls=False, token="") as client:
        prediction = client.predict(picture, explain=["gradcam"], top_k=5)
    folder.mkdir(parents=True, exist_ok=True)
    overlay = folder / f"{_PICTURE}-gradcam.png"
    prediction.explanations["gradcam"].overlay(picture, legend=True).save(overlay)
    classes = "\n".join(
        f"  {100 * one.probability:5.1f} %  {one.label:<20} {'█' * round(40 * one.probability)}"
        for one in prediction.classes
    )
    text = f"""
Ready after {start_seconds:.1f} s. What EfficientNet-Lite0 sees in {picture.name}:

{classes}

Where it looked for {prediction.classes[0].label!r}: {overlay.resolve()}"""
    return text, prediction.request_id


def suggestions(grpc_address: str, http_address: str, request_id: str, console: str) -> str:
    """What to try next while the server goes on, for people to read.

    Args:
        grpc_address: Where gRPC is served.
        http_address: Where HTTP is served.
        request_id: Of a sampled request about the demo's photograph.
        console: Where the web console is; empty where there is none.
    """
    client, there, picture = (
        _command("xai-client"),
        f"--server {grpc_address}",
        shlex.quote(str(sample_picture(_PICTURE))),
    )
    look = f"\nLook at it in a browser: {console}\n" if console else ""
    return f"""{look}
Try next, in another terminal, with a picture of yours as well:
  {client} predict {picture} --explain gradcam,rise --param rise.masks=300 --out demo-output {there}
  {client} feedback {request_id} --label "tiger cat" --box 130,20,330,280 {there}
  {client} info {there}    # how good the explanations are, in a minute or two
  curl http://{http_address}/metrics

Serving until Ctrl-C."""


def farewell() -> str:
    """What to try next once the server has ended, for people to read."""
    sidecar = _command("xai-sidecar")
    return f"""
The server has ended. Try next:
  {sidecar} demo    # the same, served until Ctrl-C, for calls of your own
  {sidecar} check --config sidecar.toml    # a model of your own, as the README describes it"""


def _command(name: str) -> str:
    """How to call a command of this installation from here."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if not beside.is_file() or (found and Path(found).samefile(beside)):
        return name
    return shlex.quote(str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside))
