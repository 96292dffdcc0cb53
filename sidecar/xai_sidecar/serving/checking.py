"""Checks requests, but for their pictures, before anything is done for them.

Errors name the field at fault by its path in the neutral request, as in ``explanations[1].parameters.masks``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xai_sidecar.errors import InvalidRequestError, PreconditionError, quoted, within
from xai_sidecar.serving.model import ServedModel
from xai_sidecar.serving.plan import ExplanationPlan
from xai_sidecar.serving.planning import NO_OOD, plan_explanation
from xai_sidecar.serving.request_ids import valid_request_id
from xai_sidecar.serving.requests import MapEncoding, PredictRequest

_DEFAULT_TOP_K = 5
_SHORTEST_INTERVAL = 0.02
_LONGEST_INTERVAL = 3600.0


@dataclass(frozen=True)
class CheckedRequest:
    """A request without fault, but for its pictures, which are not looked at yet.

    Attributes:
        top_k: Classes to return of each picture.
        ood: Whether OoD scores are wanted.
        plans: The explanations wanted.
        encodings: How to send the maps of each.
    """

    top_k: int
    ood: bool
    plans: tuple[ExplanationPlan, ...]
    encodings: tuple[MapEncoding, ...]

    @property
    def needs_ood(self) -> bool:
        """Whether OoD scores are needed, for the answer or for a condition."""
        return self.ood or any(plan.condition.ood_percentile_below is not None for plan in self.plans)


def check_request(request: PredictRequest, model: ServedModel) -> CheckedRequest:
    """Checks all of a request that can be checked without decoding pictures.

    Raises:
        SidecarError: With the path of the field at fault.
    """
    model.check_name(request.model)
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
    top_k = min(_DEFAULT_TOP_K, class_count) if request.top_k is None else request.top_k
    if not 1 <= top_k <= class_count:
        raise InvalidRequestError(f"top_k is {top_k}; give 1 to {class_count}, the number of classes.", field="top_k")
    if len(request.explanations) > limits.max_explanations:
        raise InvalidRequestError(
            f"{len(request.explanations)} explanations are asked for; the server takes {limits.max_explanations}.",
            field="explanations",
        )
    plans, encodings = _plans(request, model)
    _check_passes(len(request.images), plans, model)
    checked = CheckedRequest(top_k, request.ood, plans, encodings)
    _check_answer_bytes(len(request.images), checked, model)
    return checked


def check_interval(seconds: float) -> float:
    """The seconds between two progress events that a caller gets who asks for so many.

    Raises:
        InvalidRequestError: They are out of range; `field` is ``progress_interval``.
    """
    if not 0 < seconds <= _LONGEST_INTERVAL:
        raise InvalidRequestError(
            f"The interval is {seconds:g} s; give more than 0 and at most {_LONGEST_INTERVAL:g}.",
            field="progress_interval",
        )
    return max(seconds, _SHORTEST_INTERVAL)


def _plans(request: PredictRequest, model: ServedModel) -> tuple[tuple[ExplanationPlan, ...], tuple[MapEncoding, ...]]:
    plans: list[ExplanationPlan] = []
    encodings: list[MapEncoding] = []
    wanted = iter(request.explanations)
    for index in range(len(request.explanations)):
        with within(f"explanations[{index}]"):
            each = next(wanted)  # an adapter may convert it only now
            plan = plan_explanation(each, model)
            if any(plan.name == other.name for other in plans):
                raise InvalidRequestError(
                    f"There are two explanations named {quoted(plan.name)}. Give them different names.", field="name"
                )
            plans.append(plan)
            encodings.append(each.encoding)
    return tuple(plans), tuple(encodings)


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


def _check_answer_bytes(image_count: int, checked: CheckedRequest, model: ServedModel) -> None:
    """Refuses maps that could be more than the server sends at a time; PNGs are counted as if they did not shrink."""
    limits, pixels = model.config.server, model.input.height * model.input.width
    size = image_count * sum(
        plan.targets.most(limits.max_targets) * pixels * encoding.value_bytes
        for plan, encoding in zip(checked.plans, checked.encodings, strict=True)
    )
    if size > limits.max_message_bytes:
        raise InvalidRequestError(
            f"The maps could take {size:,} bytes, but the server sends {limits.max_message_bytes:,} in a message. "
            "Ask for fewer pictures, explanations or targets, or for an encoding of fewer bytes (float16 or PNG).",
            field="explanations",
        )
