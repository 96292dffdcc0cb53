"""Which role each path takes: one table of all routes. A route that is not in it is not served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from xai_sidecar.serving.callers import ANYBODY, Role

ROLES: Final[Mapping[str, frozenset[Role]]] = {
    # What asks for these has no token, as a rule, and learns no more than whether the server works.
    "/healthz": ANYBODY,
    "/readyz": ANYBODY,
    "/metrics": frozenset({Role.READ}),
}
"""For each route's path, the roles any of which will do; `ANYBODY` where none is needed."""
