"""The config sections of explainers, each made from the parameters of its explainer."""

from __future__ import annotations

import functools
from typing import Any, Literal

from pydantic import BaseModel, Field, create_model

from xai_sidecar.config.section import Section
from xai_sidecar.errors import ConfigError
from xai_sidecar.explainers.base import Explainer, LayerParameters
from xai_sidecar.explainers.discovery import installed_explainers


class ExplainerConfig(BaseModel):
    """What can be set of every explainer besides its parameters."""

    enabled: bool = Field(default=True, description="Whether to offer it; one that is not costs no start-up time.")


class LayerExplainerConfig(ExplainerConfig):
    """What can be set besides of one whose parameters name a layer."""

    layers: list[str] = Field(
        default=[], description="Further layers to compile at start, so that requests may name them at no delay."
    )
    compile_on_demand: bool = Field(
        default=False,
        description="Whether a request may name a layer that was not compiled at start. Its first use takes seconds, "
        "during which predictions wait.",
    )


class ExplainersConfig(Section):
    """The explainers, a section each; see `explainers_section`."""

    precision: Literal["auto", "float32"] = Field(
        default="auto",
        description="What the passes of RISE and RISEPlus are computed in. auto: in bfloat16 where the device gains by "
        "it, from 256 to 4,000 masks. Each explanation then scores 24 masks in both, makes the difference part of the "
        "standard errors that it tells, and stays in float32 where it would show. float32: always in that.",
    )


@functools.cache
def explainers_section() -> type[ExplainersConfig]:
    """The sections of all explainers that are installed.

    Raises:
        ConfigError: A package brings one that cannot be used.
    """
    sections: dict[str, Any] = {}
    for name, explainer in installed_explainers().items():
        if name in ExplainersConfig.model_fields:
            raise ConfigError(
                f"the explainer of {type(explainer).__module__} is called {name}, as a key here is. Rename it.",
                field="explainers",
            )
        section = _section(explainer)
        sections[name] = (section, Field(default_factory=section, description=f"Defaults of {name}."))
    return create_model("ExplainersConfig", __base__=ExplainersConfig, **sections)


def _section(explainer: Explainer[Any]) -> type[BaseModel]:
    """The section of an explainer."""
    parameters = explainer.parameters_type
    common = LayerExplainerConfig if issubclass(parameters, LayerParameters) else ExplainerConfig
    doc = f"Defaults of `{explainer.name}`."
    return create_model(f"{type(explainer).__name__}Config", __base__=(parameters, common), __doc__=doc)
