"""From what a caller asks of an explanation to the plan of it: explainer, parameters, targets, budget, condition."""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from xai_sidecar.errors import (
    InvalidRequestError,
    ParameterError,
    PreconditionError,
    TargetError,
    UnknownExplainerError,
    quoted,
    within,
)
from xai_sidecar.explainers.base import Explainer, ExplainerParameters
from xai_sidecar.serving.model import ExplainerSetup, ServedModel
from xai_sidecar.serving.plan import Condition, ExplanationPlan, Targets, in_units
from xai_sidecar.serving.requests import ExplanationRequest

AUTO = "auto"
"""Asks for the best measured explainer that the time allows."""

NO_OOD = (
    "This server has no OoD net. Leave {} out, or train one with xai-sidecar train-ood and set ood.checkpoint in the "
    "server's config."
)
_SEED_BITS = 32  # of seeds drawn here: JSON and JavaScript carry them, too
_LONGEST_NAME = 128


def plan_explanation(request: ExplanationRequest, model: ServedModel) -> ExplanationPlan:
    """Checks what a caller asks of one explanation, and fills in the defaults.

    Raises:
        SidecarError: With the field at fault.
    """
    for field, value in (("explainer", request.explainer), ("name", request.name)):
        if len(value) > _LONGEST_NAME:
            raise InvalidRequestError(f"It has more than {_LONGEST_NAME} characters. Shorten it.", field=field)
    if request.explainer == AUTO:
        plan = _auto_plan(request, model)
    else:
        plan = _plan(request, _setup(request.explainer, model), model)
    _check_budget(plan, model)
    return plan


def _setup(name: str, model: ServedModel) -> ExplainerSetup:
    setup = model.explainers.get(name)
    usable = ", ".join(name for name, other in model.explainers.items() if not other.unavailable)
    if setup is None:
        raise UnknownExplainerError(
            f"There is no explainer {quoted(name)} here. There are: {usable}.", field="explainer"
        )
    if setup.unavailable:
        raise PreconditionError(f"{name} cannot be used: {setup.unavailable} Usable here: {usable}.", field="explainer")
    return setup


def _auto_plan(request: ExplanationRequest, model: ServedModel) -> ExplanationPlan:
    """The quickest explainer, with all those that may be chosen once the prediction is there."""
    if request.parameters:
        raise ParameterError(
            "auto takes no parameters, since it may choose any explainer. Ask for one by its name, or leave them out.",
            field="parameters",
        )
    seeded = replace(request, seed=secrets.randbits(_SEED_BITS) if request.seed is None else request.seed)
    limits = model.config.server
    plans = {name: _plan(seeded, setup, model) for name, setup in model.explainers.items() if not setup.unavailable}
    if not plans:
        raise PreconditionError("There is no explainer that can be used with this model.", field="explainer")
    passes = {name: plan.most_passes(limits.max_targets, model.facts) for name, plan in plans.items()}
    # Where none is cheap enough, the request is refused for what the cheapest takes.
    most = max(limits.max_passes, min(passes.values()))
    candidates = {name: plan for name, plan in plans.items() if passes[name] <= most}
    quickest = min(candidates.values(), key=lambda plan: model.seconds(plan.kind, plan.counts.most))
    return replace(quickest, candidates=candidates)


def _plan(request: ExplanationRequest, setup: ExplainerSetup, model: ServedModel) -> ExplanationPlan:
    targets = _targets(request.targets, len(model.labels), model.config.server.max_targets)
    parameters = _parameters(request.parameters, setup, model)
    reduced = setup.explainer.reduced(parameters, model.facts)
    return ExplanationPlan(
        name=request.name or request.explainer,
        explainer=setup.explainer,
        parameters=parameters,
        targets=targets,
        kind=reduced or setup.explainer.kind(parameters),
        counts=setup.explainer.pass_counts(targets.fewest, parameters, model.facts),
        seed=secrets.randbits(_SEED_BITS) if request.seed is None else request.seed,
        budget_seconds=_budget(request.budget_seconds),
        condition=_condition(request.condition, model),
        reduced=reduced,
    )


def _budget(seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds < math.inf:
        raise InvalidRequestError(f"The budget is {seconds:g} s; give more than 0.", field="budget")
    return seconds


def _check_budget(plan: ExplanationPlan, model: ServedModel) -> None:
    """Refuses a budget that leaves no time for the first map, even on an idle device."""
    budget, kind, counts = plan.budget_seconds, plan.kind, plan.counts
    if budget is not None and budget < (first := model.seconds(plan.first_kind, counts.first)):
        raise PreconditionError(
            f"The budget of {in_units(budget)} is less than the {in_units(first)} that the first map takes on this "
            f"device; all of it takes {in_units(model.seconds(kind, counts.most))}. Allow it more time.",
            field="budget",
        )


def _condition(condition: Condition | None, model: ServedModel) -> Condition:
    if condition is None:
        return Condition()
    if condition.always:
        raise InvalidRequestError("It is empty. Set one of its fields, or leave it out.", field="condition")
    for name, highest in (("top_probability_below", 1), ("ood_percentile_below", 100)):
        value = getattr(condition, name)
        if value is not None and not 0 < value <= highest:
            raise InvalidRequestError(
                f"{name} is {value:g}; give more than 0 and at most {highest}.", field=f"condition.{name}"
            )
    if condition.ood_percentile_below is not None and not model.facts.has_ood:
        raise PreconditionError(NO_OOD.format("the condition"), field="condition.ood_percentile_below")
    return condition


def _targets(targets: Targets, class_count: int, limit: int) -> Targets:
    given = {
        "class_ids": bool(targets.class_ids),
        "min_probability": targets.min_probability is not None,
        "top_count": targets.top_count is not None,
    }
    named = [name for name, is_set in given.items() if is_set]
    if len(named) > 1:
        raise TargetError(f"Both {named[0]} and {named[1]} are set. Set one of them.", field="targets")
    if targets.min_probability is not None and not 0 < targets.min_probability <= 1:
        raise TargetError(
            f"min_probability is {targets.min_probability:g}; give more than 0 and at most 1.",
            field="targets.min_probability",
        )
    highest = min(limit, class_count)
    if targets.top_count is not None and not 1 <= targets.top_count <= highest:
        raise TargetError(f"top_count is {targets.top_count}; give 1 to {highest}.", field="targets.top_count")
    return replace(targets, class_ids=_class_ids(targets.class_ids, class_count, limit))


def _class_ids(class_ids: Collection[int], class_count: int, limit: int) -> tuple[int, ...]:
    if len(class_ids) > limit:
        raise TargetError(f"{len(class_ids)} targets are listed; the server takes {limit}.", field="targets.class_ids")
    seen: set[int] = set()
    for index, class_id in enumerate(class_ids):
        field = f"targets.class_ids[{index}]"
        if not 0 <= class_id < class_count:
            raise TargetError(f"There is no class {class_id}; the model has 0 to {class_count - 1}.", field=field)
        if class_id in seen:
            raise TargetError(f"Class {class_id} is listed twice. List it once.", field=field)
        seen.add(class_id)
    return tuple(class_ids)


def _parameters(given: Mapping[str, Any], setup: ExplainerSetup, model: ServedModel) -> ExplainerParameters:
    """An explainer's parameters as far as the caller gives them, the rest as configured."""
    if not given:
        return setup.defaults
    explainer = setup.explainer
    follows = explainer.parameters_type.follows
    configured = {
        name: value for name, value in setup.configured.model_dump().items() if follows.get(name) not in given
    }
    with within("parameters"):
        _check_names(given, explainer)
        try:
            parameters = explainer.parameters_type(**{**configured, **given})
        except ValidationError as error:
            problem = error.errors()[0]
            path = ".".join(str(part) for part in problem["loc"])
            raise ParameterError(f"{problem['msg']}; got {quoted(problem['input'])}.", field=path) from None
        resolved: ExplainerParameters = explainer.resolve(parameters, model.facts)
        _check_compiled(resolved, setup)
    return resolved


def _check_names(given: Mapping[str, Any], explainer: Explainer[Any]) -> None:
    known = explainer.parameters_type.model_fields
    for name in given:
        if name not in known:
            raise ParameterError(f"{explainer.name} has no parameter {quoted(name)}. It has {', '.join(known)}.")


def _check_compiled(parameters: ExplainerParameters, setup: ExplainerSetup) -> None:
    """Refuses a layer that would have to be compiled first, unless the config allows that."""
    explainer = setup.explainer
    kind = explainer.kind(parameters)
    if not setup.on_demand and kind not in setup.kinds:
        ready = ", ".join(kind.layer for kind in setup.kinds)
        raise PreconditionError(
            f"{quoted(kind.layer)} was not compiled at start. Ask for one of {ready}, or have it "
            f"added to explainers.{explainer.name}.layers in the config.",
            field="layer",
        )
