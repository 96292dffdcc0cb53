"""The config sections of metrics, each the parameters of its metric."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import Field, create_model

from xai_sidecar.config.section import Section
from xai_sidecar.metrics.discovery import installed_metrics


class MetricParametersConfig(Section):
    """Parameters of the metrics, a section each; see `metric_parameters_section`."""


@functools.cache
def metric_parameters_section() -> type[MetricParametersConfig]:
    """The parameters of all metrics that are installed, by the metrics' names.

    Raises:
        ConfigError: A package brings one that cannot be used.
    """
    sections: dict[str, Any] = {}
    for name, metric in installed_metrics().items():
        parameters = metric.parameters_type
        sections[name] = (parameters, Field(default_factory=parameters, description=f"Parameters of {name}."))
    return create_model("MetricParametersConfig", __base__=MetricParametersConfig, **sections)
