"""Scores as MindSpore XAI defines them, from this package's metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from xai_sidecar.engine.work import Steps
from xai_sidecar.explainers.base import Context
from xai_sidecar.metrics.base import Metric, Score
from xai_sidecar.metrics.faithfulness import CurveMetric, DeletionAuc, InsertionAuc, NaiveFaithfulness, area
from xai_sidecar.metrics.instance import Instance
from xai_sidecar.metrics.localization import Iosr, IosrParameters, PointingGame, PointingGameParameters
from xai_sidecar.metrics.perturbation import PerturbationParameters

Measure: TypeAlias = Callable[[Instance, Context], Steps[Score]]
"""Measures an instance."""

PROTOCOL = PerturbationParameters(protocol="mindspore_xai")


def _naive(instance: Instance, context: Context) -> Steps[Score]:
    score = yield from NaiveFaithfulness().measure(instance, PROTOCOL, context)
    return score if score.value is None else Score((1 + score.value) / 2)


def _deletion(instance: Instance, context: Context) -> Steps[Score]:
    return (yield from _by_curve(DeletionAuc(), instance, context, lambda curve: 1 - area(curve)))


def _insertion(instance: Instance, context: Context) -> Steps[Score]:
    return (yield from _by_curve(InsertionAuc(), instance, context, lambda curve: area(curve) - curve[0]))


def _by_curve(
    metric: CurveMetric, instance: Instance, context: Context, faithfulness: Callable[[Any], Any]
) -> Steps[Score]:
    """The score by a curve, whose first value is before the first step."""
    score = yield from metric.measure(instance, PROTOCOL, context)
    if score.value is None:
        return score
    curve = yield from metric.curve(instance, PROTOCOL, context)
    return Score((1 + float(faithfulness(curve))) / 2)


def _located(metric: Metric[Any], parameters: Any) -> Measure:
    return lambda instance, context: metric.measure(instance, parameters, context)


FAITHFULNESS: dict[str, Measure] = {"NaiveFaithfulness": _naive, "DeletionAUC": _deletion, "InsertionAUC": _insertion}
LOCALIZATION: dict[str, Measure] = {
    "PointingGame": _located(PointingGame(), PointingGameParameters()),
    "IoSR": _located(Iosr(), IosrParameters()),
}


NAMES = {
    "NaiveFaithfulness": NaiveFaithfulness.name,
    "DeletionAUC": DeletionAuc.name,
    "InsertionAUC": InsertionAuc.name,
    "PointingGame": PointingGame.name,
    "IoSR": Iosr.name,
}
"""The metrics' own names."""
