"""The models that benchmarks run on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.backends.mindspore.loading import load_net
from xai_sidecar.backends.mindspore.source import ModelSource
from xai_sidecar.command.demo import demo_config, with_ood
from xai_sidecar.config import Config
from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import RELU_RULES, FloatArray, Forward, Kind, MaskedForward, MaskedOodScore
from xai_sidecar.ood.head import OodHead, TrainingRecord
from xai_sidecar.zoo.sample import sample_picture

RESNET = "mindcv.models:resnet50"
SAMPLE = "xai_sidecar.zoo.efficientnet_lite:efficientnet_lite0"
PICTURES = (
    "astronaut",
    "camera",
    "chelsea",
    "clock_motion",
    "coffee",
    "coins",
    "horse",
    "hubble_deep_field",
    "motorcycle_left",
    "rocket",
)
"""Photographs for figures that go over several."""

_FEATURES = {RESNET: 2048, SAMPLE: 1280}


@contextmanager
def engine(factory: str, forward_engine: str, *sizes: int) -> Iterator[tuple[Engine, MindSporeBackend]]:
    """A classifier of 1,000 classes at 224 x 224 with random weights, compiled for everything in the batch sizes.

    Args:
        factory: Of the net.
        forward_engine: As in the config.
        sizes: Batch sizes.
    """
    source = ModelSource(
        factory, {"num_classes": 1000}, batch_sizes=sizes, gradient_batch_sizes=(1,), forward_engine=forward_engine
    )
    made: list[MindSporeBackend] = []

    def make() -> MindSporeBackend:
        net = load_net(factory, source.arguments, None).net
        head = random_head(MindSporeBackend(source, net).version, _FEATURES[factory])
        made.append(MindSporeBackend(replace(source, ood=head), net))
        return made[0]

    running = Engine(make)
    running.start(_all_kinds).result()
    try:
        yield running, made[0]
    finally:
        running.close()


def _all_kinds(backend: Backend) -> list[Kind]:
    layer = backend.default_layer or ""
    gradients = [Kind("input_gradient", relu_rule=rule) for rule in ("", *RELU_RULES)]
    return [Forward.kind, MaskedForward.kind, MaskedOodScore.kind, *gradients, Kind("layer_gradient", layer)]


def random_head(version: str, features: int) -> OodHead:
    """An OoD net's head of random weights: as fast as a trained one."""
    weights = np.random.default_rng(0).standard_normal((1000, features)).astype(np.float32)
    record = TrainingRecord(0, 0.0, {}, version, features, 1000, "predictions", "", 0, 0)
    return OodHead(weights, np.arange(1000, dtype=np.int32), np.zeros(1, np.float32), record)


def image() -> FloatArray:
    """A model input, (3, 224, 224) float32."""
    return np.random.default_rng(0).standard_normal((3, 224, 224)).astype(np.float32)


@contextmanager
def sample_config(cache: Path | None, *, ood: bool = False) -> Iterator[tuple[Config, Path]]:
    """The sample classifier's config, and the same as a file for a server process.

    Args:
        cache: The compile cache; None for none.
        ood: Whether it has the demo's OoD net.
    """
    config = demo_config(
        [f'model.compile_cache="{cache}"' if cache else "model.compile_cache=false"], lambda line: None
    )
    config = with_ood(config, lambda line: None) if ood else config
    model = config.model
    scoring = f'[ood]\ncheckpoint = "{config.ood.checkpoint}"' if ood else ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sidecar.toml"
        path.write_text(
            f"""
[model]
name = "{model.name}"
onnx = "{model.onnx}"
labels = "{model.labels}"
compile_cache = {f'"{cache}"' if cache else "false"}
[model.input]
size = 224
resize = 256
interpolation = "bicubic"
mean = {127 / 255}
mean_colour = {127 / 255}
std = {128 / 255}
{scoring}
[server]
grpc = "127.0.0.1:0"
http = "127.0.0.1:0"
"""
        )
        yield config, path


def photograph() -> Path:
    """A photograph of a cat."""
    return sample_picture("chelsea")
