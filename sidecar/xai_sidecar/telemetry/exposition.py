"""What /metrics shows of our own series: all that have a value, with the label `model`."""

from __future__ import annotations

import math
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, GCCollector, Metric, PlatformCollector, ProcessCollector
from prometheus_client.registry import Collector


def process_registry() -> CollectorRegistry:
    """A registry with the series of the process: memory, CPU time, Python's version and garbage collector."""
    # A collector has no names where what it collects is not known beforehand; `/metrics?name[]=...` finds them yet.
    registry = CollectorRegistry(support_collectors_without_names=True)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


class ModelSeries(Collector):
    """The families of a registry, with the name of the model that they are about as a label of every sample.

    Left out are gauges of NaN, whose value is not known, and the samples ``*_created``, one for every label set of a
    counter or histogram, which Prometheus uses only behind a feature flag.

    Args:
        registry: The families.
        model: The model's name, `model.name` of the config.
    """

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        self._registry = registry
        self._labels = {"model": model}

    def collect(self) -> Iterable[Metric]:
        """See `prometheus_client.registry.Collector`."""
        for family in self._registry.collect():
            created = f"{family.name}_created"
            family.samples = [
                sample._replace(labels={**self._labels, **sample.labels})
                for sample in family.samples
                if sample.name != created and not math.isnan(sample.value)
            ]
            yield family
