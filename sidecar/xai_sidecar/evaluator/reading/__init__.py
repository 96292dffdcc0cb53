"""Reads the evaluator's store for those who look at samples: of a server that runs, or of a run that has ended."""

from xai_sidecar.evaluator.reading.class_maps import ClassMap
from xai_sidecar.evaluator.reading.filters import SampleFilter, ScoreRange
from xai_sidecar.evaluator.reading.history import History, Shown, Traffic
from xai_sidecar.evaluator.reading.one_sample import ExplanationView, SampleDetail
from xai_sidecar.evaluator.reading.orders import Order
from xai_sidecar.evaluator.reading.pages import Page
from xai_sidecar.evaluator.reading.points import Point
from xai_sidecar.evaluator.reading.reader import Reader
from xai_sidecar.evaluator.reading.views import ExplainedView, Extras, SampleView, TruthView

__all__ = [
    "ClassMap",
    "ExplainedView",
    "ExplanationView",
    "Extras",
    "History",
    "Order",
    "Page",
    "Point",
    "Reader",
    "SampleDetail",
    "SampleFilter",
    "SampleView",
    "ScoreRange",
    "Shown",
    "Traffic",
    "TruthView",
]
