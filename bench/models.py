"""The models that benchmarks run on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from xai_sidecar.backends.mindspore.backend import MindSporeBackend, ModelSource
from xai_sidecar.config import Config
from xai_sidecar.demo import demo_config
from xai_sidecar.engine.work import FloatArray, Forward, InputGradient, Kind
from xai_sidecar.zoo.sample import sample_picture

RESNET = "mindcv.models:resnet50"
SAMPLE = "xai_sidecar.zoo.efficientnet_lite:efficientnet_lite0"


def backend(factory: str, *sizes: int) -> MindSporeBackend:
    """A classifier of 1,000 classes at 224 x 224 with random weights, compiled for everything in the batch sizes."""
    made = MindSporeBackend(ModelSource(factory, {"num_classes": 1000}, batch_sizes=sizes, gradient_batch_sizes=sizes))
    layer = made.default_layer
    made.warm_up([Forward.kind, InputGradient.kind, Kind("layer_gradient", layer or "")], lambda line: None)
    return made


def image() -> FloatArray:
    """A model input, (3, 224, 224) float32."""
    return np.random.default_rng(0).standard_normal((3, 224, 224)).astype(np.float32)


@contextmanager
def sample_config(cache: Path | None) -> Iterator[tuple[Config, Path]]:
    """The sample classifier's config, and the same as a file for a server process.

    Args:
        cache: The compile cache; None for none.
    """
    config = demo_config(
        [f'model.compile_cache="{cache}"' if cache else "model.compile_cache=false"], lambda line: None
    )
    model = config.model
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sidecar.toml"
        path.write_text(
            f"""
[model]
name = "{model.name}"
factory = "{model.factory}"
checkpoint = "{model.checkpoint}"
labels = "{model.labels}"
compile_cache = {f'"{cache}"' if cache else "false"}
[model.input]
size = 224
resize = 256
interpolation = "bicubic"
mean = {127 / 255}
std = {128 / 255}
[server]
grpc = "127.0.0.1:0"
http = "127.0.0.1:0"
"""
        )
        yield config, path


def photograph() -> Path:
    """A photograph of a cat."""
    return sample_picture("chelsea")
