"""Server reflection by both its names: grpcio-reflection has v1alpha alone, and newer tools ask for v1, the same."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

_V1 = "grpc.reflection.v1.ServerReflection"


def add_reflection(services: Iterable[str], server: grpc.aio.Server) -> None:
    """Has a server describe services.

    Args:
        services: Their full names.
        server: The server.
    """
    named = (*services, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(named, server)
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(named).ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = grpc.method_handlers_generic_handler(_V1, {"ServerReflectionInfo": handler})
    server.add_generic_rpc_handlers((handlers,))
