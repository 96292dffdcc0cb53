"""From what a request says of an explanation to the plan of it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from pydantic import ValidationError

from xai_proto import explanation_pb2 as pb
from xai_sidecar.errors import (
    InvalidRequestError,
    ParameterError,
    PreconditionError,
    TargetError,
    UnknownExplainerError,
    UnsupportedError,
    quoted,
    within,
)
from xai_sidecar.explainers.base import Explainer, Parameters
from xai_sidecar.serving.model import ExplainerSetup, ServedModel
from xai_sidecar.serving.plan import Condition, ExplanationPlan, Targets, in_units

NO_OOD = (
    "This server has no OoD net. Leave {} out, or train one with xai-sidecar train-ood and set ood.checkpoint in the "
    "server's config."
)
_SEED_BITS = 32  # of seeds drawn here: JSON and JavaScript carry them, too
_LONGEST_NAME = 128
_MOST_SECONDS = 315_576_000_000  # as google.protobuf.Duration says
_MOST_NANOS = 999_999_999
_AUTO = "auto"
_IN_THE_CONTRACT = {field.name for field in pb.ExplanationRequest.DESCRIPTOR.oneofs_by_name["parameters"].fields}
_ENCODINGS = set(pb.MapEncoding.values())
_PARAMETER_NAMES = {"mask_count": "masks"}
_FIELD_NAMES = {parameter: field for field, parameter in _PARAMETER_NAMES.items()}
"""Parameters that have another name in the contract's messages than everywhere else."""

_SAME_NAMES: Mapping[str, str] = {}
_MOST_NAMED_BYTES = 8 * 1024
"""Of `named_parameters`: what is made of them on the event loop takes less than a millisecond."""


def read_duration(duration: Duration, field: str) -> float:
    """A duration in seconds.

    Raises:
        InvalidRequestError: It is none: google.protobuf.Duration has bounds, and one sign for both of its fields.
    """
    seconds, nanos = duration.seconds, duration.nanos
    if abs(seconds) > _MOST_SECONDS or abs(nanos) > _MOST_NANOS or seconds * nanos < 0:
        raise InvalidRequestError(
            f"{seconds} s and {nanos} ns are no Duration. Give seconds within ±{_MOST_SECONDS:,}, and nanos within "
            f"±{_MOST_NANOS:,} and of the same sign.",
            field=field,
        )
    return float(seconds + nanos / 1e9)


def read_plan(wanted: pb.ExplanationRequest, model: ServedModel) -> ExplanationPlan:
    """Checks what a request says of one explanation.

    Raises:
        SidecarError: With the field at fault.
    """
    for field in ("explainer", "name"):
        if len(getattr(wanted, field)) > _LONGEST_NAME:
            raise InvalidRequestError(f"It has more than {_LONGEST_NAME} characters. Shorten it.", field=field)
    if wanted.encoding not in _ENCODINGS:
        raise InvalidRequestError(f"{wanted.encoding} is no MapEncoding of this version.", field="encoding")
    if wanted.explainer == _AUTO:
        plan = _auto_plan(wanted, model)
    else:
        plan = _plan_of(wanted, _offered(wanted.explainer, model), model)
    _check_budget(plan, model)
    return plan


def _offered(name: str, model: ServedModel) -> ExplainerSetup:
    offered = model.explainers.get(name)
    usable = ", ".join(name for name, other in model.explainers.items() if not other.unavailable)
    if offered is None and name in _IN_THE_CONTRACT:
        raise UnsupportedError(f"This version of the server does not have {name}. It has: {usable}.", field="explainer")
    if offered is None:
        raise UnknownExplainerError(
            f"There is no explainer {quoted(name)} here. There are: {usable}.", field="explainer"
        )
    if offered.unavailable:
        raise PreconditionError(
            f"{name} cannot be used: {offered.unavailable} Usable here: {usable}.", field="explainer"
        )
    return offered


def _auto_plan(wanted: pb.ExplanationRequest, model: ServedModel) -> ExplanationPlan:
    """The quickest explainer, with all those that may be chosen once the prediction is there."""
    given = _given(wanted)
    if given is not None:
        instead = "an explainer by its name" if given == "named_parameters" else given
        raise ParameterError(
            f"auto takes no parameters, since it may choose any explainer. Ask for {instead}, or leave them out.",
            field=given,
        )
    seed = wanted.seed if wanted.HasField("seed") else secrets.randbits(_SEED_BITS)
    limits = model.config.server
    plans = {
        name: replace(_plan_of(wanted, offered, model), seed=seed)
        for name, offered in model.explainers.items()
        if not offered.unavailable
    }
    if not plans:
        raise PreconditionError("There is no explainer that can be used with this model.", field="explainer")
    passes = {name: plan.most_passes(limits.max_targets, model.facts) for name, plan in plans.items()}
    # Where none is cheap enough, the request is refused for what the cheapest takes.
    most = max(limits.max_passes, min(passes.values()))
    candidates = {name: plan for name, plan in plans.items() if passes[name] <= most}
    quickest = min(candidates.values(), key=lambda plan: model.seconds(plan.kind, plan.counts.most))
    return replace(quickest, candidates=candidates)


def _plan_of(wanted: pb.ExplanationRequest, offered: ExplainerSetup, model: ServedModel) -> ExplanationPlan:
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
        budget_seconds=_budget(wanted),
        condition=_condition(wanted, model),
    )


def _budget(wanted: pb.ExplanationRequest) -> float | None:
    if not wanted.HasField("budget"):
        return None
    budget = read_duration(wanted.budget, "budget")
    if budget <= 0:
        raise InvalidRequestError(f"The budget is {budget:g} s; give more than 0.", field="budget")
    return budget


def _check_budget(plan: ExplanationPlan, model: ServedModel) -> None:
    """Sees to it that there is time for a map at all."""
    budget, kind, counts = plan.budget_seconds, plan.kind, plan.counts
    if budget is not None and budget < (first := model.seconds(kind, counts.first)):
        raise PreconditionError(
            f"The budget of {in_units(budget)} is less than the {in_units(first)} that the first map takes on this "
            f"device; all of it takes {in_units(model.seconds(kind, counts.most))}. Allow it more time.",
            field="budget",
        )


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
        raise PreconditionError(NO_OOD.format("the condition"), field="condition.ood_percentile_below")
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
    seen: set[int] = set()
    for index, class_id in enumerate(ids):
        field = f"targets.class_ids[{index}]"
        if not 0 <= class_id < class_count:
            raise TargetError(f"There is no class {class_id}; the model has 0 to {class_count - 1}.", field=field)
        if class_id in seen:
            raise TargetError(f"Class {class_id} is listed twice. List it once.", field=field)
        seen.add(class_id)
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


def _given(wanted: pb.ExplanationRequest) -> str | None:
    """Which field of a request has parameters.

    Raises:
        ParameterError: Both have.
    """
    typed = wanted.WhichOneof("parameters")
    if typed is not None and wanted.HasField("named_parameters"):
        raise ParameterError(f"Both {typed} and named_parameters are set. Set one of them.", field="named_parameters")
    return "named_parameters" if wanted.HasField("named_parameters") else typed


def _parameters(wanted: pb.ExplanationRequest, offered: ExplainerSetup, model: ServedModel) -> Parameters:
    explainer = offered.explainer
    given = _given(wanted)
    if given is None:
        return offered.defaults
    if given not in (explainer.name, "named_parameters"):
        raise ParameterError(
            f"These are parameters of {given}, but {explainer.name} is asked for. Set {explainer.name} instead.",
            field=given,
        )
    with within(given):
        if given == "named_parameters":
            return _filled(_named_values(wanted.named_parameters, explainer), offered, model)
        message = getattr(wanted, given)
        if given == "rise_plus":
            with within("rise"):
                return _filled(_set_fields(message.rise), offered, model, _FIELD_NAMES)
        return _filled(_set_fields(message), offered, model, _FIELD_NAMES)


def _filled(
    given: dict[str, Any], offered: ExplainerSetup, model: ServedModel, field_names: Mapping[str, str] = _SAME_NAMES
) -> Parameters:
    """An explainer's parameters as far as a request sets them, the rest as configured.

    Args:
        given: The values of a request, by the parameters' names.
        offered: The explainer.
        model: The model.
        field_names: Names of the request's fields, where they differ from those of the parameters.
    """
    explainer = offered.explainer
    follows = explainer.parameters_type.follows
    configured = {
        name: value for name, value in offered.configured.model_dump().items() if follows.get(name) not in given
    }
    values = {**configured, **given}
    try:
        parameters = explainer.parameters_type(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        path = ".".join(str(part) for part in problem["loc"])
        raise ParameterError(
            f"{problem['msg']}; got {quoted(problem['input'])}.", field=field_names.get(path, path)
        ) from None
    resolved: Parameters = explainer.resolve(parameters, model.facts)
    if not offered.on_demand and explainer.kind(resolved) not in offered.kinds:
        ready = ", ".join(kind.layer for kind in offered.kinds)
        raise PreconditionError(
            f"{quoted(explainer.kind(resolved).layer)} was not compiled at start. Ask for one of {ready}, or have it "
            f"added to explainers.{explainer.name}.layers in the config.",
            field="layer",
        )
    return resolved


def _named_values(struct: Struct, explainer: Explainer[Any]) -> dict[str, Any]:
    """The values of a Struct, by the parameters' names.

    Raises:
        ParameterError: There is no such parameter, a value is none, or all are too large.
    """
    if struct.ByteSize() > _MOST_NAMED_BYTES:
        raise ParameterError(f"They take {struct.ByteSize():,} bytes of at most {_MOST_NAMED_BYTES:,}. Shorten them.")
    for name in struct.fields:
        if name not in explainer.parameters_type.model_fields:
            known = ", ".join(explainer.parameters_type.model_fields)
            raise ParameterError(f"{explainer.name} has no parameter {quoted(name)}. It has {known}.")
    values = {}
    for name, value in struct.fields.items():
        with within(name):
            values[name] = _plain(value)
    return values


def _plain(value: Value) -> Any:
    """A value as Python's own; a number that is whole as an int, which stands for a float, too."""
    kind = value.WhichOneof("kind")
    if kind is None:
        raise ParameterError("It has no value. Give it one, or null for none.")
    if kind == "null_value":
        return None
    if kind == "number_value":
        return int(value.number_value) if value.number_value.is_integer() else value.number_value
    if kind == "list_value":
        return [_plain(one) for one in value.list_value.values]
    if kind == "struct_value":
        return {name: _plain(one) for name, one in value.struct_value.fields.items()}
    return getattr(value, kind)


def _set_fields(message: Message) -> dict[str, Any]:
    """The fields that are set, by the parameters' names; enums by the lower-case rest of theirs."""
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
        values[_PARAMETER_NAMES.get(field.name, field.name)] = value
    return values
