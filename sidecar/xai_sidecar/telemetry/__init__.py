"""Every Prometheus series, defined once: of serving in `serving.py`, of explanation quality in `quality.py`."""

from prometheus_client import CollectorRegistry as Registry

from xai_sidecar.telemetry.quality import EVENTS, EXPLAIN, OTHER, REASONS, RESULTS, STATES, QualityTelemetry
from xai_sidecar.telemetry.serving import METHODS, STAGES, Telemetry

__all__ = [
    "EVENTS",
    "EXPLAIN",
    "METHODS",
    "OTHER",
    "REASONS",
    "RESULTS",
    "STAGES",
    "STATES",
    "QualityTelemetry",
    "Registry",
    "Telemetry",
]
