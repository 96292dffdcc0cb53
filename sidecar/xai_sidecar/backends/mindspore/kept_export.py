"""Keeps a net's export on disk: making it takes MindSpore seconds at each start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from xai_sidecar.backends.runtimes.keeping import EngineCache, cache_key, code_digest


def kept_export(cache: EngineCache | None, key: object, export: Callable[[], bytes]) -> bytes:
    """A net as an ONNX model: as an earlier start has exported it, or exported and kept.

    Whatever is found is compared with the net as an export of this start would be.

    Args:
        cache: Where it is kept; None keeps nothing.
        key: By its repr, all that the export depends on but the code of this package: the net with its weights and its
            code, the versions of MindSpore and ONNX, and the shape of the input.
        export: Exports the net.
    """
    if cache is None:
        return export()
    name = cache_key(repr(key).encode(), "export", code_digest(Path(__file__).parent))
    if path := cache.find(name):
        return path.read_bytes()
    model = export()
    cache.keep(name, model)
    return model
