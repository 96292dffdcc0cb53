"""The version of a graph: a digest of what it computes, whatever its values are called."""

from __future__ import annotations

import hashlib

from xai_sidecar.backends.graph.graph import Graph
from xai_sidecar.digest import array_text, canonical


def graph_version(graph: Graph, *parts: object) -> str:
    """A digest of a graph's operators, weights and settings.

    Args:
        graph: The graph as it was loaded.
        parts: What else counts, in values that have a canonical form: the preparation of the input, its layout.

    Returns:
        12 hexadecimal digits.
    """
    numbers: dict[str, str] = {"": ""}
    numbers.update((name, f"input {place}") for place, name in enumerate(graph.inputs))
    numbers.update((name, array_text(value)) for name, value in graph.constants.items())
    text = hashlib.sha256(canonical((graph.opset, parts)).encode())
    for place, node in enumerate(graph.nodes):
        numbers.update((name, f"{place}:{index}") for index, name in enumerate(node.outputs) if name)
        text.update(f"\n{canonical((node.kind, [numbers[name] for name in node.inputs], node.attributes))}".encode())
    text.update(canonical([numbers[name] for name in graph.outputs]).encode())
    return text.hexdigest()[:12]
