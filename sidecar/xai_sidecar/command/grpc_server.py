"""The gRPC port: its services, who may call them, and whether it is ready."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_proto import open_inference_pb2 as oip
from xai_proto import open_inference_pb2_grpc as oip_grpc
from xai_proto import quality_pb2 as qpb
from xai_proto import quality_pb2_grpc as qpb_grpc
from xai_sidecar.command.addresses import joined, split
from xai_sidecar.command.listening import Guards, listen_grpc
from xai_sidecar.config import ServerConfig
from xai_sidecar.open_inference.service import OpenInference
from xai_sidecar.rpc.access import AccessInterceptor
from xai_sidecar.rpc.answerer import Answerer
from xai_sidecar.rpc.channel import server_options
from xai_sidecar.rpc.interceptors import CallInterceptor
from xai_sidecar.rpc.open_inference_servicer import OpenInferenceServicer
from xai_sidecar.rpc.quality_servicer import QualityServicer
from xai_sidecar.rpc.reflection import add_reflection
from xai_sidecar.rpc.servicer import ExplanationServicer
from xai_sidecar.serving.call_records import CallRecords
from xai_sidecar.serving.core import Core
from xai_sidecar.serving.quality import Quality
from xai_sidecar.telemetry.tracing import Tracer

_SERVICES: Final = tuple(
    service.full_name for each in (pb, qpb, oip) for service in each.DESCRIPTOR.services_by_name.values()
)


@dataclass(frozen=True)
class GrpcServer:
    """A started gRPC server.

    Attributes:
        server: gRPC's.
        health: Says whether it is ready.
        address: Where it listens.
    """

    server: grpc.aio.Server
    health: health.aio.HealthServicer
    address: str

    async def set_ready(self, ready: bool = True) -> None:
        """Says whether it is ready."""
        states = health_pb2.HealthCheckResponse
        await _set_health(self.health, states.SERVING if ready else states.NOT_SERVING)


@dataclass(frozen=True)
class Served:
    """What answers the calls of each service."""

    core: Core
    answerer: Answerer
    quality: Quality
    open_inference: OpenInference


async def start_grpc(
    limits: ServerConfig, guards: Guards, served: Served, calls: CallRecords, tracer: Tracer | None
) -> GrpcServer:
    """Starts to serve gRPC, not ready yet.

    Raises:
        ConfigError: It cannot listen there.
    """
    server = grpc.aio.server(
        interceptors=[AccessInterceptor(guards.access, calls), CallInterceptor(calls, tracer)],
        # Calls beyond `max_calls` are refused with an error of ours; beyond this, gRPC refuses them itself.
        maximum_concurrent_rpcs=2 * limits.max_calls,
        options=server_options(limits.max_message_bytes, limits.max_calls),
    )
    pb_grpc.add_ExplanationServiceServicer_to_server(ExplanationServicer(served.core, served.answerer), server)  # type: ignore[no-untyped-call]
    qpb_grpc.add_QualityServiceServicer_to_server(QualityServicer(served.quality), server)  # type: ignore[no-untyped-call]
    oip_grpc.add_GRPCInferenceServiceServicer_to_server(OpenInferenceServicer(served.open_inference), server)  # type: ignore[no-untyped-call]
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    if limits.reflection:
        add_reflection((*_SERVICES, health.SERVICE_NAME), server)
    await _set_health(health_servicer, health_pb2.HealthCheckResponse.NOT_SERVING)
    port = listen_grpc(server, limits.grpc, guards.tls)
    await server.start()
    return GrpcServer(server, health_servicer, joined(split(limits.grpc)[0], port))


async def _set_health(servicer: health.aio.HealthServicer, status: Any) -> None:
    for service in ("", *_SERVICES):
        await servicer.set(service, status)
