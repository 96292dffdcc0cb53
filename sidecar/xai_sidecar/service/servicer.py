"""The calls of the contract: decode, submit, encode, and nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_sidecar.errors import ShuttingDownError, UnsupportedError
from xai_sidecar.service.decode import read_images, read_request
from xai_sidecar.service.encode import model_info, predict_response
from xai_sidecar.service.interceptors import request_id_of
from xai_sidecar.service.model import ServedModel
from xai_sidecar.service.predictor import Predictor, deadline_of

T = TypeVar("T")


@dataclass(frozen=True)
class Serving:
    """What there is once the model is loaded.

    Attributes:
        model: The model.
        predictor: What runs it.
        ready_seconds: When it became ready, as Unix time.
    """

    model: ServedModel
    predictor: Predictor
    ready_seconds: float


class ExplanationServicer(pb_grpc.ExplanationServiceServicer):
    """Implements the contract.

    Attributes:
        serving: The model; None until it is loaded, and again when the server drains.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.serving: Serving | None = None
        self._pool = pool

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        """Classifies and explains."""
        serving = self._ready()
        deadline = deadline_of(context.time_remaining())
        asked = read_request(request, serving.model)
        limits = serving.model.config.server
        with serving.predictor.admit(len(request.images), len(request.images) * len(asked.plans)):
            images = await self._off_loop(partial(read_images, request.images, serving.model.input, limits))
            predicted = await serving.predictor.predict(images, asked.plans, deadline, ood=asked.ood)
            answer = partial(predict_response, predicted, asked, serving.model, request_id_of(context))
            # Without maps it is a few small messages, not worth a thread.
            return await self._off_loop(answer) if asked.plans else answer()

    async def PredictStream(
        self, request: pb.PredictStreamRequest, context: Any
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        """Not in this version."""
        raise UnsupportedError("This version of the server does not stream. Call Predict instead.")
        yield

    async def ReportGroundTruth(
        self, request: pb.ReportGroundTruthRequest, context: Any
    ) -> pb.ReportGroundTruthResponse:
        """Not in this version."""
        raise UnsupportedError("This version of the server takes no ground truth.")

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: Any) -> pb.GetModelInfoResponse:
        """Describes the model."""
        serving = self._ready()
        return pb.GetModelInfoResponse(model=model_info(serving.model, serving.ready_seconds))

    def _ready(self) -> Serving:
        if self.serving is None:
            raise ShuttingDownError("The server is starting or shutting down. Try again, or another one.")
        return self.serving

    async def _off_loop(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)
