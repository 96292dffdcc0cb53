"""Keeps what graphs have to give, so that a second start need not run them plainly, which takes most of its time."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

from xai_sidecar.backends.runtimes.keeping import EngineCache, cache_key
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.digest import array_text
from xai_sidecar.engine.work import Array


def expected_outputs(
    model: bytes,
    fed: tuple[Array, ...],
    compute: Callable[[], tuple[Array, ...]],
    cache: EngineCache | None,
    *parts: object,
) -> tuple[Array, ...]:
    """What a graph has to give for some inputs: as an earlier start has kept it, or computed and kept.

    Args:
        model: The graph, serialised.
        fed: Its inputs.
        compute: Runs it plainly, with ONNX Runtime.
        cache: Where it is kept; None keeps nothing.
        parts: What else the outputs depend on.
    """
    if cache is None:
        return compute()
    key = cache_key(model, "expected", OnnxRuntime().version, parts, [array_text(array) for array in fed])
    if path := cache.find(key):
        with np.load(path) as kept:
            return tuple(kept.values())
    outputs = compute()
    content = io.BytesIO()
    np.savez(content, *outputs)
    cache.keep(key, content.getvalue())
    return outputs
