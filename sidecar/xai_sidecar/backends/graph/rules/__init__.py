"""The rules of derivatives: for each operator, how gradients pass it from its outputs to its inputs.

A rule gets a node, the gradients by its outputs, each of the shape of its output, or None where the logits do not
depend on one, and an `Emitter` to write with. It returns the gradients by the inputs, each of the shape of its input,
up to the last input that can have one: None is a gradient of zero. What nobody uses of it is dropped in the end.
"""

from xai_sidecar.backends.graph.rules import (
    activations,
    averages,
    convolutions,
    einsum,
    elementwise,
    functions,
    indexing,
    maxima,
    normalization,
    parts,
    products,
    reductions,
    resizing,
    shapes,
    smooth,
)
from xai_sidecar.backends.graph.rules.registry import RULES, NotDerivableError, Rule

__all__ = [
    "RULES",
    "NotDerivableError",
    "Rule",
    "activations",
    "averages",
    "convolutions",
    "einsum",
    "elementwise",
    "functions",
    "indexing",
    "maxima",
    "normalization",
    "parts",
    "products",
    "reductions",
    "resizing",
    "shapes",
    "smooth",
]
