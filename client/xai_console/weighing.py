"""A composite score by weights of the viewer's own."""

from __future__ import annotations

from collections.abc import Container, Mapping


def composite(goodness: Mapping[str, float], weights: Mapping[str, float]) -> float | None:
    """The weighted mean of what metrics say, 0 to 1 with 1 for the best.

    Args:
        goodness: By metric; one that is not there was not measured.
        weights: By metric; 0 counts for nothing.

    Returns:
        None where one that counts was not measured, for its place could be anywhere; never 0 instead.
    """
    counting = {metric: weight for metric, weight in weights.items() if weight > 0}
    if not counting or not counting.keys() <= goodness.keys():
        return None
    total = sum(counting.values())
    return sum(weight * goodness[metric] for metric, weight in counting.items()) / total


def missing(measured: Container[str], weights: Mapping[str, float]) -> list[str]:
    """The metrics that count and were not measured."""
    return [metric for metric, weight in weights.items() if weight > 0 and metric not in measured]
