"""The calls of the contract: messages become the core's requests, its answers become messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_sidecar.rpc.answerer import Answerer, ReceivedCall
from xai_sidecar.rpc.ground_truth import ground_truth_response, read_report
from xai_sidecar.rpc.info import model_info
from xai_sidecar.rpc.interceptors import REQUEST_ID, is_named, received, request_id_of
from xai_sidecar.serving.callers import current_caller, role_names
from xai_sidecar.serving.core import Core, deadline_of

REPEAT = "x-repeat"
"""The metadata entry that says how a call was answered without work of its own."""
ROLES = "x-roles"
"""The metadata entry of a description that says what its caller may do, with commas; not sent where all may do all."""


class ExplanationServicer(pb_grpc.ExplanationServiceServicer):
    """Implements the contract.

    Args:
        core: Answers the calls.
        answerer: Answers predictions; None for one of its own.
    """

    def __init__(self, core: Core, answerer: Answerer | None = None) -> None:
        self.core = core
        self._answerer = answerer or Answerer(core)

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        """Classifies and explains, unless the same call is answered, or being answered, already."""
        answer, how = await self._answerer.predict(request, _call(request, context))
        _tell(context, how)
        return answer

    async def PredictStream(
        self, request: pb.PredictStreamRequest, context: Any
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        """Classifies, and sends explanations as they come."""
        events = self._answerer.stream(request, _call(request.request, context), partial(_tell, context))
        async with aclosing(events):
            async for event in events:
                yield event

    async def ReportGroundTruth(
        self, request: pb.ReportGroundTruthRequest, context: Any
    ) -> pb.ReportGroundTruthResponse:
        """Takes what a sampled picture really showed."""
        return ground_truth_response(await self.core.report_ground_truth(read_report(request, received().byte_count)))

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: Any) -> pb.GetModelInfoResponse:
        """Describes the model: beside the loop, which predictions are not to wait for while scores are compared."""
        if (caller := current_caller()).listed:
            roles = ",".join(role_names(caller.roles))
            context.set_trailing_metadata(((REQUEST_ID, request_id_of(context)), (ROLES, roles)))
        info = await asyncio.to_thread(lambda: model_info(self.core.describe(request.model)))
        return pb.GetModelInfoResponse(model=info)


def _call(request: pb.PredictRequest, context: Any) -> ReceivedCall:
    """What is known of a call."""
    return ReceivedCall(
        request_id_of(context),
        received().byte_count,
        deadline_of(context.time_remaining()),
        is_named(request, context),
        received().fingerprint,
    )


def _tell(context: Any, how: str) -> None:
    """Tells a caller how a call was answered, if that was without work of its own."""
    if how:
        context.set_trailing_metadata(((REQUEST_ID, request_id_of(context)), (REPEAT, how)))
