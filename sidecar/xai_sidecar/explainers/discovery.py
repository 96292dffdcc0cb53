"""The explainers that there are."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from xai_sidecar import extensions
from xai_sidecar.explainers.base import Explainer, ExplainerParameters, LayerParameters

SCHEMA_TYPES = ("integer", "number", "string", "boolean")
"""Types of parameters that the contract has, as JSON schemas name them."""

CONFIG_KEYS = ("enabled", "layers", "compile_on_demand")
"""Keys that the config has of explainers besides their parameters."""

_REQUEST_KEYS = (
    "explainer",
    "name",
    "targets",
    "min_probability",
    "top_count",
    "budget",
    "seed",
    "encoding",
    "top_probability_below",
    "ood_percentile_below",
)
"""What callers say of an explanation besides the explainer's parameters, by the names that the SDK has for it."""


@functools.cache
def built_in_explainers() -> Mapping[str, Explainer[Any]]:
    """The explainers of xai-sidecar itself by name, in the order in which they are listed."""
    return extensions.built_in(_GROUP)


@functools.cache
def installed_explainers() -> Mapping[str, Explainer[Any]]:
    """All explainers by name: the built-in ones, then those that installed packages bring.

    Raises:
        ConfigError: A package brings one that cannot be used; see `extensions.installed`.
    """
    return extensions.installed(_GROUP)


def value_schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON schema of a parameter's value, of one that may also be not set."""
    return next((one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"), schema)


def _fault(explainer: Explainer[Any]) -> str:
    properties = explainer.parameters_type.model_json_schema()["properties"]
    for name, schema in properties.items():
        if name in (*CONFIG_KEYS, *_REQUEST_KEYS):
            return f"The parameter {name!r} has the name of something else that requests or the config say. Rename it."
        if value_schema(schema).get("type") not in SCHEMA_TYPES:
            return f"The parameter {name!r} is none of {', '.join(SCHEMA_TYPES)}, which are what the contract has."
    if "layer" in properties and not issubclass(explainer.parameters_type, LayerParameters):
        return "Its parameter 'layer' is its own. Make its parameters a subclass of LayerParameters."
    return ""


_GROUP: extensions.Group[Explainer[Any]] = extensions.Group(
    noun="explainer",
    base=Explainer,
    parameters_base=ExplainerParameters,
    package="xai_sidecar.explainers",
    entry_points="xai_sidecar.explainers",
    names=r"[a-z][a-z0-9_]*",
    reserved=frozenset({"auto", *dir(BaseModel)}),  # names of config sections besides
    fault=_fault,
)
