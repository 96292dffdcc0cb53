"""The series of the drift of maps, read whenever /metrics is. There are none before there is something to tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

_LABELS = ("explainer", "statistic", "source", "class")


@dataclass(frozen=True)
class DriftFigure:
    """A statistic of maps now, and in the reference window.

    Attributes:
        source: "requests" or "samples": where the maps come from.
        explainer: Name of the explainer.
        statistic: Name of the statistic.
        class_name: The class that the maps are of; empty for all classes together.
        reference: Mean of the reference window.
        current: Mean of the current window.
        ratio: Distance of the two windows over the smallest that is beyond chance: drift from 1 on.
    """

    source: str
    explainer: str
    statistic: str
    class_name: str
    reference: float
    current: float
    ratio: float


@dataclass(frozen=True)
class DriftFigures:
    """Everything that the drift series show, at one moment.

    Attributes:
        figures: By source, explainer, statistic and class.
        dropped: Pictures whose maps were not looked at.
    """

    figures: tuple[DriftFigure, ...] = ()
    dropped: int = 0


class DriftCollector(Collector):
    """Shows how far maps have drifted; a family without a value is left out, too.

    Args:
        figures: Gives the figures as of now; called on the thread that answers /metrics.
    """

    def __init__(self, figures: Callable[[], DriftFigures]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """See `prometheus_client.registry.Collector`."""
        return [family for family in self._families(self._figures()) if family.samples]

    def describe(self) -> Iterable[Metric]:
        """All families, without samples."""
        return self._families(DriftFigures())

    def _families(self, figures: DriftFigures) -> list[Metric]:
        drift = GaugeMetricFamily(
            "xai_map_drift",
            "How far a statistic of maps has come from the reference window, over what chance may do: drift from 1 on.",
            labels=_LABELS,
        )
        statistic = GaugeMetricFamily(
            "xai_map_statistic",
            "Mean of a statistic of maps over the reference window and over the current one.",
            labels=(*_LABELS, "window"),
        )
        dropped = CounterMetricFamily(
            "xai_drift_dropped", "Pictures whose maps were not compared, since others waited."
        )
        for each in figures.figures:
            key = (each.explainer, each.statistic, each.source, each.class_name)
            drift.add_metric(key, each.ratio)
            statistic.add_metric((*key, "reference"), each.reference)
            statistic.add_metric((*key, "current"), each.current)
        if figures.dropped:
            dropped.add_metric((), figures.dropped)
        return [drift, statistic, dropped]
