"""What the service adds to a prediction: a gRPC call minus the bare forward pass and the JPEG decoding in it."""

from __future__ import annotations

import io
import statistics

from PIL import Image

from bench import models
from bench.figure import Figure, interleaved
from bench.server import served
from xai_client import Client
from xai_sidecar.backends.loading import load_backend
from xai_sidecar.engine.work import Forward
from xai_sidecar.imaging import decode, prepare

_ROUNDS = 150


def figures() -> list[Figure]:
    """The call, the forward pass and the decoding take turns, so that all meet the same noise."""
    with models.sample_config(None) as (config, path), served(path) as (address, _), Client(address) as client:
        backend = load_backend(
            config.model_copy(update={"model": config.model.model_copy(update={"batch_sizes": [1]})})
        )
        backend.warm_up([Forward.kind], lambda line: None)
        jpeg = io.BytesIO()
        Image.open(models.photograph()).save(jpeg, "JPEG", quality=90)
        data = jpeg.getvalue()
        image = prepare(decode(data, 10**9), config.model.input.spec()).array[None]
        call, forward, decoding = interleaved(
            _ROUNDS,
            lambda: client.predict(data),
            lambda: backend.run(Forward.kind, (image,)),
            lambda: decode(data, 10**9),
        )
    overhead = 1e3 * (statistics.median(call) - statistics.median(forward) - statistics.median(decoding))
    note = (
        f"call {1e3 * statistics.median(call):.1f}, forward {1e3 * statistics.median(forward):.1f}, "
        f"decoding {1e3 * statistics.median(decoding):.1f} ms, medians; EfficientNet-Lite0"
    )
    return [Figure("a gRPC prediction minus forward pass and JPEG decoding", overhead, "ms", 3, note)]
