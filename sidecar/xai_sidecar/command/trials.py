"""Trials of explainers, whose ratios are kept on disk: they say the same at each start, and take most of a second."""

from __future__ import annotations

import json
import math
from pathlib import Path

from xai_sidecar import __version__
from xai_sidecar.backends.runtimes.keeping import EngineCache, cache_key
from xai_sidecar.cpus import usable_cpus
from xai_sidecar.engine.engine import Engine
from xai_sidecar.serving.model import ServedModel
from xai_sidecar.serving.trial import try_explainers


async def try_or_recall(model: ServedModel, engine: Engine) -> None:
    """Tries the explainers, but for those of which an earlier start has kept what they take.

    Args:
        model: The model; its config says where that is kept, if it is.
        engine: Ready and idle.
    """
    folder = model.config.model.compile_cache
    cache = EngineCache(folder) if isinstance(folder, Path) else None
    key = _key(model)
    path = cache.find(key) if cache is not None else None
    known = _ratios(path.read_bytes()) if path is not None else {}
    found = await try_explainers(model, engine, known)
    if cache is not None and found != known:
        cache.keep(key, json.dumps(found).encode())


def _key(model: ServedModel) -> str:
    """A digest of all that the ratios depend on, the CPU included."""
    config = model.config
    explainers = [
        (name, setup.explainer.version, repr(setup.defaults), model.default_kind(setup))
        for name, setup in model.explainers.items()
        if not setup.unavailable
    ]
    sizes = config.model.batch_sizes, config.model.gradient_batch_sizes, config.server.slice_milliseconds
    threads = config.model.threads or usable_cpus()
    backend = model.backend
    where = backend.device, backend.engine, getattr(backend, "concurrency", 1)
    return cache_key(b"trials", __version__, model.version, where, explainers, sizes, threads)


def _ratios(content: bytes) -> dict[str, float]:
    """The ratios by explainer; none where they are not what they should be."""
    try:
        ratios = {str(name): float(ratio) for name, ratio in json.loads(content).items()}
    except (ValueError, TypeError, AttributeError):
        return {}
    return ratios if all(0 < ratio < math.inf for ratio in ratios.values()) else {}
