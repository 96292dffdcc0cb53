"""The calls of the Open Inference Protocol over gRPC."""

from __future__ import annotations

from typing import Any

import grpc

from xai_proto import open_inference_pb2 as pb
from xai_proto import open_inference_pb2_grpc as pb_grpc
from xai_sidecar.open_inference.service import OpenInference
from xai_sidecar.rpc.interceptors import received, request_id_of
from xai_sidecar.rpc.open_inference import infer_response, metadata_response, read_infer_request
from xai_sidecar.serving.core import deadline_of


class OpenInferenceServicer(pb_grpc.GRPCInferenceServiceServicer):
    """Implements the protocol.

    Args:
        service: Answers the calls.
    """

    def __init__(self, service: OpenInference) -> None:
        self._service = service

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Any) -> pb.ServerLiveResponse:
        """Tells whether the process still works."""
        return pb.ServerLiveResponse(live=self._service.is_alive())

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Any) -> pb.ServerReadyResponse:
        """Tells whether requests should be sent here."""
        return pb.ServerReadyResponse(ready=self._service.is_ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:
        """Tells whether a model can be asked."""
        return pb.ModelReadyResponse(ready=self._service.model_ready(request.name, request.version))

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Any) -> pb.ServerMetadataResponse:
        """Describes the server."""
        server = self._service.server_metadata()
        return pb.ServerMetadataResponse(name=server.name, version=server.version, extensions=server.extensions)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:
        """Describes a model's inputs and outputs."""
        return metadata_response(self._service.model_metadata(request.name, request.version))

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        """Computes a model's outputs."""
        call = received()
        return await self._service.infer(
            read_infer_request(request, call.byte_count or 0),
            infer_response,
            request_id=request_id_of(context),
            deadline=deadline_of(context.time_remaining()),
            describe=call.describe,
        )

    async def ModelStreamInfer(self, request_iterator: Any, context: Any) -> None:
        """Refuses: answers of this server are whole."""
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            "ModelStreamInfer is not served, since no answer of this server comes in parts. Call ModelInfer, or "
            "xai.v1.ExplanationService.PredictStream for explanations that get better while one watches.",
        )
