"""The calls of the contract: decode, submit, encode, and nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_sidecar.errors import PreconditionError, ShuttingDownError, under
from xai_sidecar.rpc.codec import Codec
from xai_sidecar.rpc.decode import CheckedRequest, read_interval, read_request
from xai_sidecar.rpc.encode import explaining_event, finished_event, predict_response, predicted_event
from xai_sidecar.rpc.ground_truth import fields_of, ground_truth_response, read_ground_truth
from xai_sidecar.rpc.info import model_info
from xai_sidecar.rpc.interceptors import request_id_of
from xai_sidecar.serving.admission import Admission, Demand
from xai_sidecar.serving.evaluation import Evaluation
from xai_sidecar.serving.model import ServedModel
from xai_sidecar.serving.predictor import Predictor, deadline_of
from xai_sidecar.serving.streaming import explanations, is_partial

_FEW_SCORES = 1000


@dataclass(frozen=True)
class ServingState:
    """What there is once the model is loaded.

    Attributes:
        model: The model.
        admission: What decides on requests.
        predictor: What runs the model.
        evaluation: What measures its explanations.
        ready_seconds: When it became ready, as Unix time.
    """

    model: ServedModel
    admission: Admission
    predictor: Predictor
    evaluation: Evaluation
    ready_seconds: float


class ExplanationServicer(pb_grpc.ExplanationServiceServicer):
    """Implements the contract.

    Args:
        codec: Decodes pictures and encodes answers.

    Attributes:
        serving: The model; None until it is loaded, and again when the server drains.
    """

    def __init__(self, codec: Codec) -> None:
        self.serving: ServingState | None = None
        self._codec = codec

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        """Classifies and explains."""
        serving = self._ready()
        model, predictor = serving.model, serving.predictor
        asked = read_request(request, model)
        demand = _demand(request, asked, model, context)
        deadline = demand.deadline
        with serving.admission.admit(demand) as admitted:
            images = await self._codec.prepare(request.images, model.input, deadline)
            predicted = await predictor.predict(images, deadline, ood=asked.needs_ood)
            admitted.predicted()
            explained = await predictor.explain(predicted, asked.plans, deadline, admitted)
            request_id = request_id_of(context)
            sampled = serving.evaluation.samples(request_id)
            answer = partial(predict_response, predicted, explained, asked, model, request_id, sampled)
            if sampled:
                serving.evaluation.offer(request_id, model, predicted, explained)
            # Without maps it is a few small messages, not worth a thread.
            few = not asked.plans and len(predicted) * asked.top_k <= _FEW_SCORES
            return answer() if few else await self._codec.run(answer)

    async def PredictStream(
        self, request: pb.PredictStreamRequest, context: Any
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        """Classifies, and sends explanations as they come."""
        serving = self._ready()
        model, predictor = serving.model, serving.predictor
        interval = read_interval(request)
        request_id = request_id_of(context)
        with under("request"):
            asked = read_request(request.request, model)
            demand = _demand(request.request, asked, model, context)
            deadline = demand.deadline
            with serving.admission.admit(demand) as admitted:
                images = await self._codec.prepare(request.request.images, model.input, deadline)
                predicted = await predictor.predict(images, deadline, ood=asked.needs_ood)
                admitted.predicted()
                sampled = serving.evaluation.samples(request_id)
                if sampled:
                    serving.evaluation.offer(request_id, model, predicted)
                first = partial(predicted_event, predicted, asked, model, request_id, sampled)
                yield first() if len(predicted) * asked.top_k <= _FEW_SCORES else await self._codec.run(first)
                coming = explanations(predictor, predicted, asked.plans, deadline, interval, admitted)
                async with aclosing(coming):
                    async for event in coming:
                        encode = partial(explaining_event, event, asked, model, request_id)
                        # What half precision cannot carry of a map on its way is no reason to end the stream.
                        with suppress(PreconditionError) if is_partial(event) else nullcontext():
                            yield await self._codec.run(encode)
        yield finished_event(request_id)

    async def ReportGroundTruth(
        self, request: pb.ReportGroundTruthRequest, context: Any
    ) -> pb.ReportGroundTruthResponse:
        """Takes what a sampled picture really showed."""
        serving = self._ready()
        evaluator = serving.evaluation.evaluator
        if evaluator is None:
            raise PreconditionError(
                "This server samples no requests, and so takes no ground truth. Set evaluator.sample_rate in its "
                "config."
            )
        with serving.admission.holding(request.ByteSize()):
            key, truth = await self._codec.run(partial(read_ground_truth, request, serving.model))
            with fields_of(request):
                receipt = await asyncio.wrap_future(evaluator.intake.report(key, truth))
        return ground_truth_response(request, receipt)

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: Any) -> pb.GetModelInfoResponse:
        """Describes the model."""
        serving = self._ready()
        standing = serving.evaluation.quality.standing()
        costs = serving.predictor.costs
        return pb.GetModelInfoResponse(model=model_info(serving.model, serving.ready_seconds, standing, costs))

    def _ready(self) -> ServingState:
        if self.serving is None:
            raise ShuttingDownError("The server is starting or shutting down. Try again, or another one.")
        return self.serving


def _demand(request: pb.PredictRequest, asked: CheckedRequest, model: ServedModel, context: Any) -> Demand:
    own, longest = context.time_remaining(), model.config.server.max_call_seconds
    capped = own is None or own > longest
    deadline = deadline_of(longest if capped else own)
    return Demand(len(request.images), asked.plans, request.ByteSize(), deadline, capped)
