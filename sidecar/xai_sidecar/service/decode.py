"""From the contract's requests to the types that the rest of the program works with; every check is here."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from pydantic import ValidationError

from xai_proto import explanation_pb2 as pb
from xai_sidecar.engine.work import Kind
from xai_sidecar.errors import (
    InvalidRequestError,
    ParameterError,
    PreconditionError,
    TargetError,
    UnknownExplainerError,
    UnsupportedError,
    within,
)
from xai_sidecar.explainers.base import Parameters, PassCounts
from xai_sidecar.service.model import OfferedExplainer, ServedModel
from xai_sidecar.service.plan import Condition, ExplanationPlan, Targets, in_units

_BYTES = {pb.MAP_ENCODING_FLOAT32: 4, pb.MAP_ENCODING_FLOAT16: 2, pb.MAP_ENCODING_PNG: 1}
_DEFAULT_TOP_K = 5
_DEFAULT_INTERVAL = 0.25
_SHORTEST_INTERVAL = 0.02
_LONGEST_INTERVAL = 3600.0
_NO_OOD = (
    "This server has no OoD net. Leave {} out, or train one with xai-sidecar train-ood and set ood.checkpoint in the "
    "server's config."
)
_SEED_BITS = 32  # of seeds drawn here: JSON and JavaScript carry them, too
_LONGEST_NAME = 128
_IN_THE_CONTRACT = {
    "auto",
    *(field.name for field in pb.ExplanationRequest.DESCRIPTOR.oneofs_by_name["parameters"].fields),
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


@dataclass(frozen=True)
class Asked:
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


def read_request(request: pb.PredictRequest, model: ServedModel) -> Asked:
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
        raise PreconditionError(_NO_OOD.format("ood"), field="ood")
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
            plan = _plan(wanted, model)
            if any(plan.name == other.name for other in plans):
                raise InvalidRequestError(
                    f"There are two explanations named {plan.name!r}. Give them different names.", field="name"
                )
            plans.append(plan)
    encodings = tuple(wanted.encoding or pb.MAP_ENCODING_FLOAT32 for wanted in request.explanations)
    _check_passes(len(request.images), plans, model)
    asked = Asked(top_k, request.ood, tuple(plans), encodings)
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
    seconds = _seconds(request.progress_interval)
    if not 0 < seconds <= _LONGEST_INTERVAL:
        raise InvalidRequestError(
            f"The interval is {seconds:g} s; give more than 0 and at most {_LONGEST_INTERVAL:g}.",
            field="progress_interval",
        )
    return max(seconds, _SHORTEST_INTERVAL)


def _seconds(duration: Duration) -> float:
    return float(duration.seconds + duration.nanos / 1e9)


def _check_passes(image_count: int, plans: Sequence[ExplanationPlan], model: ServedModel) -> None:
    limits = model.config.server
    counts = [
        plan.explainer.pass_counts(plan.targets.most(limits.max_targets), plan.parameters, model.facts).most
        for plan in plans
    ]
    total = image_count * sum(counts)
    if total > limits.max_passes:
        most = int(np.argmax(counts))
        raise InvalidRequestError(
            f"The explanations may take {total:,} passes through the model, {plans[most].name} {counts[most]:,} a "
            f"picture; the server takes {limits.max_passes:,} a request. Ask for fewer masks, larger windows or "
            "strides, or fewer pictures at a time.",
            field=f"explanations[{most}]",
        )


def _map_bytes(asked: Asked, model: ServedModel) -> int:
    """The most bytes that the maps of one picture can take, PNGs counted as if they did not shrink."""
    limit = model.config.server.max_targets
    pixels = model.input.height * model.input.width
    return sum(
        plan.targets.most(limit) * pixels * _BYTES[encoding]
        for plan, encoding in zip(asked.plans, asked.encodings, strict=True)
    )


def _plan(wanted: pb.ExplanationRequest, model: ServedModel) -> ExplanationPlan:
    for field in ("explainer", "name"):
        if len(getattr(wanted, field)) > _LONGEST_NAME:
            raise InvalidRequestError(f"It has more than {_LONGEST_NAME} characters. Shorten it.", field=field)
    if wanted.encoding not in (pb.MAP_ENCODING_UNSPECIFIED, *_BYTES):
        raise InvalidRequestError(f"{wanted.encoding} is no MapEncoding of this version.", field="encoding")
    offered = model.explainers.get(wanted.explainer)
    usable = ", ".join(name for name, other in model.explainers.items() if not other.unavailable)
    if offered is None and wanted.explainer in _IN_THE_CONTRACT:
        raise UnsupportedError(
            f"This version of the server does not have {wanted.explainer}. It has: {usable}.", field="explainer"
        )
    if offered is None:
        raise UnknownExplainerError(
            f"There is no explainer {wanted.explainer!r} here. There are: {usable}.", field="explainer"
        )
    if offered.unavailable:
        raise PreconditionError(
            f"{wanted.explainer} cannot be used: {offered.unavailable} Usable here: {usable}.", field="explainer"
        )
    targets = _targets(wanted.targets, len(model.labels), model.config.server.max_targets)
    parameters = _parameters(wanted, offered, model)
    kind = offered.explainer.kind(parameters)
    counts = offered.explainer.pass_counts(targets.fewest, parameters, model.facts)
    return ExplanationPlan(
        name=wanted.name or wanted.explainer,
        explainer=offered.explainer,
        parameters=parameters,
        targets=targets,
        kind=kind,
        counts=counts,
        seed=wanted.seed if wanted.HasField("seed") else secrets.randbits(_SEED_BITS),
        budget_seconds=_budget(wanted, kind, counts, model),
        condition=_condition(wanted, model),
    )


def _budget(wanted: pb.ExplanationRequest, kind: Kind, counts: PassCounts, model: ServedModel) -> float | None:
    if not wanted.HasField("budget"):
        return None
    budget = _seconds(wanted.budget)
    if budget <= 0:
        raise InvalidRequestError(f"The budget is {budget:g} s; give more than 0.", field="budget")
    first, most = model.seconds(kind, counts.first), model.seconds(kind, counts.most)
    if budget < first:
        raise PreconditionError(
            f"The budget of {in_units(budget)} is less than the {in_units(first)} that the first map takes on this "
            f"device; all of it takes {in_units(most)}. Allow it more time.",
            field="budget",
        )
    return budget


def _condition(wanted: pb.ExplanationRequest, model: ServedModel) -> Condition:
    condition = wanted.condition
    given = {field.name: value for field, value in condition.ListFields()}
    if wanted.HasField("condition") and not given:
        raise InvalidRequestError("It is empty. Set one of its fields, or leave it out.", field="condition")
    for name, highest in (("top_probability_below", 1), ("ood_percentile_below", 100)):
        if name in given and not 0 < given[name] <= highest:
            raise InvalidRequestError(
                f"{name} is {given[name]:g}; give more than 0 and at most {highest}.", field=f"condition.{name}"
            )
    if "ood_percentile_below" in given and not model.facts.has_ood:
        raise PreconditionError(_NO_OOD.format("the condition"), field="condition.ood_percentile_below")
    return Condition(**given)


def _targets(targets: pb.Targets, class_count: int, limit: int) -> Targets:
    given = [field.name for field, _ in targets.ListFields()]
    if len(given) > 1:
        raise TargetError(f"Both {given[0]} and {given[1]} are set. Set one of them.", field="targets")
    if len(targets.class_ids) > limit:
        raise TargetError(
            f"{len(targets.class_ids)} targets are listed; the server takes {limit}.", field="targets.class_ids"
        )
    ids = tuple(targets.class_ids)
    for index, class_id in enumerate(ids):
        field = f"targets.class_ids[{index}]"
        if not 0 <= class_id < class_count:
            raise TargetError(f"There is no class {class_id}; the model has 0 to {class_count - 1}.", field=field)
        if class_id in ids[:index]:
            raise TargetError(f"Class {class_id} is listed twice. List it once.", field=field)
    if targets.HasField("min_probability"):
        if not 0 < targets.min_probability <= 1:
            raise TargetError(
                f"min_probability is {targets.min_probability:g}; give more than 0 and at most 1.",
                field="targets.min_probability",
            )
        return Targets(min_probability=targets.min_probability)
    if targets.HasField("top_count"):
        highest = min(limit, class_count)
        if not 1 <= targets.top_count <= highest:
            raise TargetError(f"top_count is {targets.top_count}; give 1 to {highest}.", field="targets.top_count")
        return Targets(top_count=targets.top_count)
    return Targets(class_ids=ids)


def _parameters(wanted: pb.ExplanationRequest, offered: OfferedExplainer, model: ServedModel) -> Parameters:
    explainer = offered.explainer
    given = wanted.WhichOneof("parameters")
    if given is None:
        return offered.defaults
    if given != explainer.name:
        raise ParameterError(
            f"These are parameters of {given}, but {explainer.name} is asked for. Set {explainer.name} instead.",
            field=given,
        )
    with within(given):
        message = getattr(wanted, given)
        if given == "rise_plus":
            with within("rise"):
                return _filled(message.rise, offered, model)
        return _filled(message, offered, model)


def _filled(message: Message, offered: OfferedExplainer, model: ServedModel) -> Parameters:
    """An explainer's parameters as far as a message sets them, the rest as configured."""
    explainer = offered.explainer
    given = _set_fields(message)
    follows = explainer.parameters_type.follows
    configured = {
        name: value for name, value in offered.configured.model_dump().items() if follows.get(name) not in given
    }
    values = {**configured, **given}
    try:
        parameters = explainer.parameters_type(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ParameterError(f"{problem['msg']}; got {problem['input']!r:.80}.", field=str(problem["loc"][0])) from None
    resolved: Parameters = explainer.resolve(parameters, model.facts)
    if not offered.on_demand and explainer.kind(resolved) not in offered.kinds:
        ready = ", ".join(kind.layer for kind in offered.kinds)
        raise PreconditionError(
            f"{explainer.kind(resolved).layer!r} was not compiled at start. Ask for one of {ready}, or have it "
            f"added to explainers.{explainer.name}.layers in the config.",
            field="layer",
        )
    return resolved


def _set_fields(message: Message) -> dict[str, Any]:
    """The fields that are set, enums by the lower-case rest of their names."""
    values = {}
    for field, value in message.ListFields():
        enum = field.enum_type
        if enum is not None:
            known = enum.values_by_number.get(value)
            if known is None:
                raise ParameterError(f"{value} is no {enum.name} of this version.", field=field.name)
            prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
            value = known.name.removeprefix(prefix).lower()
        elif field.type == field.TYPE_FLOAT:
            value = float(str(np.float32(value)))  # 0.1, not the 0.10000000149 that is nearest to it
        values[field.name] = value
    return values
