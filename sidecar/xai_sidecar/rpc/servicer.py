"""The calls of the contract: messages become the core's requests, its answers become messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_sidecar.errors import under
from xai_sidecar.rpc.decode import read_interval, read_request
from xai_sidecar.rpc.encode import finished_event, predict_response, stream_event
from xai_sidecar.rpc.ground_truth import ground_truth_response, read_report
from xai_sidecar.rpc.info import model_info
from xai_sidecar.rpc.interceptors import request_id_of
from xai_sidecar.rpc.parameters import contract_paths
from xai_sidecar.serving.core import Core, deadline_of


class ExplanationServicer(pb_grpc.ExplanationServiceServicer):
    """Implements the contract.

    Args:
        core: Answers the calls.
    """

    def __init__(self, core: Core) -> None:
        self.core = core

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        """Classifies and explains."""
        deadline = deadline_of(context.time_remaining())
        with contract_paths(request):
            return await self.core.predict(read_request(request, request_id_of(context)), predict_response, deadline)

    async def PredictStream(
        self, request: pb.PredictStreamRequest, context: Any
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        """Classifies, and sends explanations as they come."""
        self.core.ready()
        interval, deadline = read_interval(request), deadline_of(context.time_remaining())
        request_id = request_id_of(context)
        asked = read_request(request.request, request_id)
        with under("request"), contract_paths(request.request):
            encode = stream_event(request_id)
            async with aclosing(self.core.predict_stream(asked, encode, interval, deadline)) as events:
                async for event in events:
                    yield event
        yield finished_event(request_id)

    async def ReportGroundTruth(
        self, request: pb.ReportGroundTruthRequest, context: Any
    ) -> pb.ReportGroundTruthResponse:
        """Takes what a sampled picture really showed."""
        return ground_truth_response(await self.core.report_ground_truth(read_report(request)))

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: Any) -> pb.GetModelInfoResponse:
        """Describes the model."""
        return pb.GetModelInfoResponse(model=model_info(self.core.describe(request.model)))
