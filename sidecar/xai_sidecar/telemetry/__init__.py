"""Every Prometheus series, defined once: of serving, of the evaluator's work, and of explanation quality."""

from prometheus_client import CollectorRegistry as Registry

from xai_sidecar.telemetry.drift_collector import DriftCollector, DriftFigure, DriftFigures
from xai_sidecar.telemetry.evaluator_series import EVENTS, EXPLAIN, REASONS, RESULTS, EvaluatorTelemetry
from xai_sidecar.telemetry.exposition import ModelSeries, process_registry
from xai_sidecar.telemetry.quality_collector import OTHER, STATES, QualityCollector, QualityFigures, ScoreFigures
from xai_sidecar.telemetry.serving_series import (
    METHODS,
    OPEN_INFERENCE_METHODS,
    QUALITY_METHODS,
    REPEATS,
    STAGES,
    Telemetry,
)

__all__ = [
    "EVENTS",
    "EXPLAIN",
    "METHODS",
    "OPEN_INFERENCE_METHODS",
    "OTHER",
    "QUALITY_METHODS",
    "REASONS",
    "REPEATS",
    "RESULTS",
    "STAGES",
    "STATES",
    "DriftCollector",
    "DriftFigure",
    "DriftFigures",
    "EvaluatorTelemetry",
    "ModelSeries",
    "QualityCollector",
    "QualityFigures",
    "Registry",
    "ScoreFigures",
    "Telemetry",
    "process_registry",
]
