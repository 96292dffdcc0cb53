"""Which role each method takes: one table of all services. What is not in it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from xai_sidecar.serving.callers import ALL_ROLES, ANYBODY, Role

_READ = frozenset({Role.READ})
_PREDICT = frozenset({Role.PREDICT})

_BY_SERVICE: Final[Mapping[str, Mapping[str, frozenset[Role]]]] = {
    "xai.v1.ExplanationService": {
        "Predict": _PREDICT,  # and explain where it asks for explanations, which the core sees to
        "PredictStream": _PREDICT,
        "ReportGroundTruth": frozenset({Role.FEEDBACK}),
        "GetModelInfo": ALL_ROLES,
    },
    # What it shows are the pictures of other callers.
    "xai.v1.QualityService": {
        "ListSamples": _READ,
        "GetSample": _READ,
        "WatchSamples": _READ,
        "GetQuality": _READ,
        "GetQualityHistory": _READ,
        "GetClassMaps": _READ,
    },
    "inference.GRPCInferenceService": {
        "ServerLive": ANYBODY,
        "ServerReady": ANYBODY,
        "ModelReady": ALL_ROLES,
        "ServerMetadata": ALL_ROLES,
        "ModelMetadata": ALL_ROLES,
        "ModelInfer": _PREDICT,  # and explain, as above
        "ModelStreamInfer": _PREDICT,
    },
    # Load balancers have no token, and learn no more than whether the server is ready. A stream is kept from strangers.
    "grpc.health.v1.Health": {"Check": ANYBODY, "List": ALL_ROLES, "Watch": ALL_ROLES},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": ALL_ROLES},
    "grpc.reflection.v1.ServerReflection": {"ServerReflectionInfo": ALL_ROLES},
}

ROLES: Final[Mapping[str, frozenset[Role]]] = {
    f"/{service}/{method}": roles for service, methods in _BY_SERVICE.items() for method, roles in methods.items()
}
"""For each method, as it is called, the roles any of which will do; `ANYBODY` where none is needed."""
