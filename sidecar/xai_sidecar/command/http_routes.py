"""The routes of all protocols over HTTP."""

from __future__ import annotations

from starlette.routing import Route

from xai_sidecar.command.grpc_server import Served
from xai_sidecar.config import ServerConfig
from xai_sidecar.http.contract import ContractRoutes
from xai_sidecar.http.core_calls import CoreCalls
from xai_sidecar.http.kserve_v1_routes import KServeV1Routes
from xai_sidecar.http.open_inference import OpenInferenceRoutes
from xai_sidecar.http.requests import Bodies


def protocol_routes(limits: ServerConfig, calls: CoreCalls, served: Served) -> list[Route]:
    """The routes of all protocols.

    Args:
        limits: How much is received.
        calls: Has calls answered on the core's event loop.
        served: What answers them.
    """
    bodies = Bodies(limits.max_message_bytes, limits.queue_bytes // 4, calls.refused)
    return [
        *ContractRoutes(served.answerer, calls, bodies).routes(),
        *KServeV1Routes(served.core, calls, bodies).routes(),
        *OpenInferenceRoutes(served.open_inference, calls, bodies).routes(),
    ]
