"""Which role each path takes, and what it calls: tables of all routes. One without a role is not served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from xai_sidecar.serving.callers import ALL_ROLES, ANYBODY, Role

_PREDICT = frozenset({Role.PREDICT})

ROLES: Final[Mapping[str, frozenset[Role]]] = {
    # What asks for these has no token, as a rule, and learns no more than whether the server works.
    "/healthz": ANYBODY,
    "/readyz": ANYBODY,
    "/metrics": frozenset({Role.READ}),
    # To predict, and to explain where it asks for explanations, which the core sees to.
    "/v1/predict": _PREDICT,
    "/v1/predict:stream": _PREDICT,
    "/openapi.json": ALL_ROLES,
    "/v1/models": ALL_ROLES,
    "/v1/models/{model}": ALL_ROLES,
    "/v1/models/{model}:predict": _PREDICT,
    "/v1/models/{model}:explain": _PREDICT,  # and explain, as above
    "/v2/health/live": ANYBODY,
    "/v2/health/ready": ANYBODY,
    "/v2": ALL_ROLES,
    **{
        f"/v2/models/{{model}}{version}{end}": roles
        for version in ("", "/versions/{version}")
        for end, roles in (("", ALL_ROLES), ("/ready", ALL_ROLES), ("/infer", _PREDICT))
    },
}
"""For each route's path, the roles any of which will do; `ANYBODY` where none is needed."""

METHODS: Final[Mapping[str, str]] = {
    "/v1/predict": "Predict",
    "/v1/predict:stream": "PredictStream",
    "/v1/models/{model}:predict": "Predict",
    "/v1/models/{model}:explain": "Predict",
    "/v2/models/{model}/infer": "ModelInfer",
    "/v2/models/{model}/versions/{version}/infer": "ModelInfer",
}
"""What calls by HTTP are counted as, by the path of their route; others are not."""
