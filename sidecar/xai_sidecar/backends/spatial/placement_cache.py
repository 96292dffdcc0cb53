"""Keeps on disk where the layers of a net lie on the picture: to find that takes seconds at each start.

It is kept under a digest of all that it depends on: the caller's key, the layers, and the sources of this package, so
that another check looks anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from xai_sidecar.backends.runtimes.keeping import EngineCache, code_digest
from xai_sidecar.backends.spatial.layers import Layers, SpatialLayer


def placed(
    root: Path | None, key: object, layers: Sequence[SpatialLayer], find: Callable[[Sequence[SpatialLayer]], Layers]
) -> Layers:
    """Layers with the positions of their tokens, and those that are refused; see `layers.place`.

    Args:
        root: Folder of the cache; None for none.
        key: By its repr, all that the result depends on besides the layers: the net with its weights and its code, and
            the input that it was looked for with.
        layers: The layers of the net as found by shape.
        find: Finds it in the net.
    """
    if root is None:
        return find(layers)
    cache, name = EngineCache(root), _digest(key, layers)
    if (path := cache.find(name)) is not None:
        return _decoded(path.read_bytes(), layers)
    found = find(layers)
    cache.keep(name, _encoded(found))
    return found


def _digest(key: object, layers: Sequence[SpatialLayer]) -> str:
    everything = repr((key, list(layers), code_digest(Path(__file__).parent)))
    return hashlib.sha256(everything.encode()).hexdigest()[:32]


def _encoded(found: Layers) -> bytes:
    orders = {name: layer.order for name, layer in found.spatial.items()}
    return json.dumps({"orders": orders, "refused": found.refused}).encode()


def _decoded(data: bytes, layers: Sequence[SpatialLayer]) -> Layers:
    kept = json.loads(data)
    orders = kept["orders"]
    spatial = {layer.name: replace(layer, order=tuple(orders[layer.name])) for layer in layers if layer.name in orders}
    return Layers(spatial, kept["refused"])
