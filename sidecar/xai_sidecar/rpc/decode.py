"""From the contract's requests to the types that the rest of the program works with; every check is here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xai_proto import explanation_pb2 as pb
from xai_sidecar.errors import InvalidRequestError, PreconditionError, quoted, within
from xai_sidecar.rpc.decode_explanation import NO_OOD, read_duration, read_plan
from xai_sidecar.serving.model import ServedModel
from xai_sidecar.serving.plan import ExplanationPlan

_BYTES = {pb.MAP_ENCODING_FLOAT32: 4, pb.MAP_ENCODING_FLOAT16: 2, pb.MAP_ENCODING_PNG: 1}
_DEFAULT_TOP_K = 5
_DEFAULT_INTERVAL = 0.25
_SHORTEST_INTERVAL = 0.02
_LONGEST_INTERVAL = 3600.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


@dataclass(frozen=True)
class CheckedRequest:
    """A request, checked, but for its pictures.

    Attributes:
        top_k: Classes to return.
        ood: Whether OoD scores are wanted.
        plans: The explanations wanted.
        encodings: How to encode the maps of each.
    """

    top_k: int
    ood: bool
    plans: tuple[ExplanationPlan, ...]
    encodings: tuple[pb.MapEncoding, ...]

    @property
    def needs_ood(self) -> bool:
        """Whether OoD scores are needed, for the answer or for a condition."""
        return self.ood or any(plan.condition.ood_percentile_below is not None for plan in self.plans)


def valid_request_id(request_id: str) -> bool:
    """Whether a name for a request is one that logs and metadata can carry."""
    return _REQUEST_ID.fullmatch(request_id) is not None


def read_request(request: pb.PredictRequest, model: ServedModel) -> CheckedRequest:
    """Checks all of a request that can be checked without decoding pictures.

    Raises:
        SidecarError: With the path of the field at fault.
    """
    limits = model.config.server
    if request.request_id and not valid_request_id(request.request_id):
        raise InvalidRequestError(
            "A request id has 1 to 128 characters of [A-Za-z0-9._:-]. Shorten it or leave it out.", field="request_id"
        )
    if not 1 <= len(request.images) <= limits.max_images:
        raise InvalidRequestError(
            f"There are {len(request.images)} images in the request; send 1 to {limits.max_images}.", field="images"
        )
    if request.ood and not model.facts.has_ood:
        raise PreconditionError(NO_OOD.format("ood"), field="ood")
    class_count = len(model.labels)
    top_k = request.top_k if request.HasField("top_k") else min(_DEFAULT_TOP_K, class_count)
    if not 1 <= top_k <= class_count:
        raise InvalidRequestError(f"top_k is {top_k}; give 1 to {class_count}, the number of classes.", field="top_k")
    if len(request.explanations) > limits.max_explanations:
        raise InvalidRequestError(
            f"{len(request.explanations)} explanations are asked for; the server takes {limits.max_explanations}.",
            field="explanations",
        )
    plans: list[ExplanationPlan] = []
    for index, wanted in enumerate(request.explanations):
        with within(f"explanations[{index}]"):
            plan = read_plan(wanted, model)
            if any(plan.name == other.name for other in plans):
                raise InvalidRequestError(
                    f"There are two explanations named {quoted(plan.name)}. Give them different names.", field="name"
                )
            plans.append(plan)
    encodings = tuple(wanted.encoding or pb.MAP_ENCODING_FLOAT32 for wanted in request.explanations)
    _check_passes(len(request.images), plans, model)
    asked = CheckedRequest(top_k, request.ood, tuple(plans), encodings)
    size = len(request.images) * _map_bytes(asked, model)
    if size > limits.max_message_bytes:
        raise InvalidRequestError(
            f"The maps could take {size:,} bytes, but the server sends {limits.max_message_bytes:,} in a message. "
            "Ask for fewer pictures, explanations or targets, or for MAP_ENCODING_FLOAT16 or MAP_ENCODING_PNG.",
            field="explanations",
        )
    return asked


def read_interval(request: pb.PredictStreamRequest) -> float:
    """Seconds between two progress events."""
    if not request.HasField("progress_interval"):
        return _DEFAULT_INTERVAL
    seconds = read_duration(request.progress_interval, "progress_interval")
    if not 0 < seconds <= _LONGEST_INTERVAL:
        raise InvalidRequestError(
            f"The interval is {seconds:g} s; give more than 0 and at most {_LONGEST_INTERVAL:g}.",
            field="progress_interval",
        )
    return max(seconds, _SHORTEST_INTERVAL)


def _check_passes(image_count: int, plans: Sequence[ExplanationPlan], model: ServedModel) -> None:
    limits = model.config.server
    counts = [plan.most_passes(limits.max_targets, model.facts) for plan in plans]
    total = image_count * sum(counts)
    if total > limits.max_passes:
        most = int(np.argmax(counts))
        raise InvalidRequestError(
            f"The explanations may take {total:,} passes through the model, {plans[most].name} {counts[most]:,} a "
            f"picture; the server takes {limits.max_passes:,} a request. Ask for fewer masks, larger windows or "
            "strides, or fewer pictures at a time.",
            field=f"explanations[{most}]",
        )


def _map_bytes(asked: CheckedRequest, model: ServedModel) -> int:
    """The most bytes that the maps of one picture can take, PNGs counted as if they did not shrink."""
    limit = model.config.server.max_targets
    pixels = model.input.height * model.input.width
    return sum(
        plan.targets.most(limit) * pixels * _BYTES[encoding]
        for plan, encoding in zip(asked.plans, asked.encodings, strict=True)
    )
