"""The contract's first service where an offline run is shown: the model is described, and nothing is asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_sidecar.errors import PreconditionError
from xai_sidecar.rpc.info import model_info
from xai_sidecar.serving.quality import QualitySource


class RunServicer(pb_grpc.ExplanationServiceServicer):
    """Implements the contract as far as a run can.

    Args:
        source: Describes the model.
        name: Of the run.
    """

    def __init__(self, source: QualitySource, name: str) -> None:
        self._source = source
        self._name = name

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: Any) -> pb.GetModelInfoResponse:
        """Describes the model."""
        info = model_info(self._source.describe(request.model))
        info.run = self._name
        return pb.GetModelInfoResponse(model=info)

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        """Raises a PreconditionError."""
        raise self._no_model("predicted or explained")

    async def PredictStream(
        self, request: pb.PredictStreamRequest, context: Any
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        """Raises a PreconditionError."""
        raise self._no_model("predicted or explained")
        yield  # it is a stream all the same

    async def ReportGroundTruth(
        self, request: pb.ReportGroundTruthRequest, context: Any
    ) -> pb.ReportGroundTruthResponse:
        """Raises a PreconditionError."""
        raise self._no_model("reported")

    def _no_model(self, done: str) -> PreconditionError:
        return PreconditionError(
            f"This is the offline run {self._name}, where nothing is {done} any more. Ask a server of the model, which "
            "xai-sidecar serve starts."
        )
