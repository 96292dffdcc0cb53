"""What all backends do around their passes: kinds that share passes, masks, layouts, scores of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from xai_sidecar.backends.spatial.layers import SpatialLayer
from xai_sidecar.engine.backend import OodTraining
from xai_sidecar.engine.batching import masked
from xai_sidecar.engine.work import Array, Features, Forward, Kind
from xai_sidecar.errors import PreconditionError
from xai_sidecar.ood.head import OodHead, check_head

Program: TypeAlias = Callable[[tuple[Array, ...]], tuple[Array, ...]]
"""Takes and returns arrays whose first axis is the batch."""

_SAME_PASSES = {
    "masked_forward": Forward.kind,
    "ood_score": Features.kind,
    "masked_ood_score": Features.kind,
}


def same_passes(kind: Kind) -> Kind:
    """The kind whose program also runs the passes of a kind."""
    same = _SAME_PASSES.get(kind.name)
    return kind if same is None else replace(same, precision=kind.precision)


def kind_text(kind: Kind) -> str:
    """The name of a kind of work in messages."""
    name = " ".join(filter(None, (kind.precision, kind.relu_rule, kind.name))).replace("_", " ")
    return name + (f" of {kind.layer}" if kind.layer else "")


def to_layout(inputs: Array, layout: str) -> Array:
    """Inputs (n, C, H, W) in a net's layout, "nchw" or "nhwc"."""
    return np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)) if layout == "nhwc" else inputs


def run_passes(
    kind: Kind,
    rows: tuple[Array, ...],
    program: Program,
    layout: str,
    layers: Mapping[str, SpatialLayer],
    head: OodHead | None,
) -> tuple[Array, ...]:
    """Runs one batch of a kind on the program of its passes; see `Backend.run`.

    Args:
        kind: The kind.
        rows: The inputs, as the table of `Backend.run` says.
        program: Takes the net's inputs in its layout, and the targets of gradients; gives what the net or its
            derivative does, in the net's layout.
        layout: "nchw" or "nhwc", the axes of the net's input.
        layers: The layers by name.
        head: The head of the OoD net; None for none.

    Raises:
        PreconditionError: Scores are wanted, and there is no OoD net.
    """
    if kind.name in ("masked_forward", "masked_ood_score"):
        rows = (masked(*rows),)
    outputs = program((to_layout(rows[0], layout), *rows[1:]))
    if kind.name == "input_gradient":
        gradients = outputs[0].transpose(0, 3, 1, 2) if layout == "nhwc" else outputs[0]
        return (gradients, *outputs[1:])
    if kind.name == "layer_gradient":
        to_nchw = layers[kind.layer].to_nchw
        return (to_nchw(outputs[0]), to_nchw(outputs[1]), *outputs[2:])
    if kind.name in ("ood_score", "masked_ood_score"):
        return _scored(head, *outputs)
    return outputs


def _scored(head: OodHead | None, features: Array, logits: Array) -> tuple[Array, ...]:
    """Inlier scores and percentiles of features, and the logits."""
    if head is None:
        raise PreconditionError("There is no OoD net. Set ood.checkpoint in the config.")
    scores = head.scores(features)
    return scores, head.percentiles(scores), logits


def ood_training(head: OodHead | None, version: str, earlier_version: Callable[[], str] = str) -> OodTraining | None:
    """How an OoD net was trained; None if there is none. Arguments and errors are as of `check_head`."""
    if head is None:
        return None
    check_head(head, version, earlier_version)
    return OodTraining(head.training.sample_count, head.training.time, head.training.auroc)
