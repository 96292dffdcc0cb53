"""The routes of all protocols over HTTP."""

from __future__ import annotations

from starlette.routing import Route

from xai_sidecar.config import ServerConfig
from xai_sidecar.http.core_calls import CoreCalls
from xai_sidecar.http.open_inference import OpenInferenceRoutes
from xai_sidecar.http.requests import Bodies
from xai_sidecar.open_inference.service import OpenInference


def protocol_routes(limits: ServerConfig, calls: CoreCalls, open_inference: OpenInference) -> list[Route]:
    """The routes of all protocols.

    Args:
        limits: How much is received.
        calls: Has calls answered on the core's event loop.
        open_inference: Answers those of the Open Inference Protocol.
    """
    bodies = Bodies(limits.max_message_bytes, limits.queue_bytes // 4)
    return OpenInferenceRoutes(open_inference, calls, bodies).routes()
