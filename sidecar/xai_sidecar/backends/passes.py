"""What all backends do around their passes: layouts, kinds that share passes, scores of features."""

from __future__ import annotations

import numpy as np

from xai_sidecar.engine.work import Array, Features, Forward, Kind
from xai_sidecar.errors import PreconditionError
from xai_sidecar.ood.head import OodHead

_SAME_PASSES = {
    "masked_forward": Forward.kind,
    "ood_score": Features.kind,
    "masked_ood_score": Features.kind,
}


def same_passes(kind: Kind) -> Kind:
    """The kind whose program also runs the passes of a kind."""
    return _SAME_PASSES.get(kind.name, kind)


def kind_text(kind: Kind) -> str:
    """The name of a kind of work in messages."""
    name = f"{kind.relu_rule} {kind.name}".strip().replace("_", " ")
    return name + (f" of {kind.layer}" if kind.layer else "")


def to_layout(inputs: Array, layout: str) -> Array:
    """Inputs (n, C, H, W) in a net's layout, "nchw" or "nhwc"."""
    return np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)) if layout == "nhwc" else inputs


def from_layout(gradients: Array, layout: str) -> Array:
    """Gradients in a net's layout as (n, C, H, W)."""
    return gradients.transpose(0, 3, 1, 2) if layout == "nhwc" else gradients


def scored(head: OodHead | None, features: Array, logits: Array) -> tuple[Array, ...]:
    """Inlier scores and percentiles of features, and the logits.

    Raises:
        PreconditionError: There is no OoD net.
    """
    if head is None:
        raise PreconditionError("There is no OoD net. Set ood.checkpoint in the config.")
    scores = head.scores(features)
    return scores, head.percentiles(scores), logits
