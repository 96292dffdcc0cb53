"""The calls of the contract: messages become the core's requests, its answers become messages."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_sidecar.errors import under
from xai_sidecar.rpc.decode import read_interval, read_request
from xai_sidecar.rpc.encode import finished_event, predict_response, stream_event
from xai_sidecar.rpc.ground_truth import ground_truth_response, read_report
from xai_sidecar.rpc.info import model_info
from xai_sidecar.rpc.interceptors import REQUEST_ID, is_named, received, request_id_of
from xai_sidecar.rpc.parameters import contract_paths
from xai_sidecar.serving.core import Core, check_caller, deadline_of
from xai_sidecar.serving.repeated_streams import AskedStream, Place, StreamRepeats
from xai_sidecar.serving.repeats import CACHED, Asked, Repeats, kept_by_id

REPEAT = "x-repeat"
"""The metadata entry that says how a call was answered without work of its own."""


def content_of(message: pb.PredictRequest | pb.PredictStreamRequest, version: str) -> str:
    """A digest of everything that the answer to a request depends on, but for its id."""
    digest = hashlib.sha256(f"{version} {message.DESCRIPTOR.full_name}".encode())
    request = message.request if isinstance(message, pb.PredictStreamRequest) else message
    named, request.request_id = request.request_id, ""
    digest.update(message.SerializeToString(deterministic=True))
    request.request_id = named
    return digest.hexdigest()


def place_of(event: pb.PredictStreamResponse) -> Place:
    """What an event of a stream tells of."""
    if event.HasField("progress"):
        return Place((event.progress.image_index, event.progress.name), "progress", final=False)
    if event.HasField("explained"):
        update = event.explained
        final = update.explanation.status != pb.EXPLANATION_STATUS_PARTIAL
        return Place((update.image_index, update.explanation.name), "explained", final)
    return Place("", str(event.WhichOneof("event")), final=True)


def is_lasting(answer: pb.PredictResponse) -> bool:
    """Whether an answer would be the same at any time: nothing in it depended on the load or on measured quality."""
    explanations = (each for one in answer.predictions for each in one.explanations)
    return not any(each.truncated or each.HasField("auto_choice") for each in explanations)


def renamed(answer: pb.PredictResponse, request_id: str) -> pb.PredictResponse:
    """The answer to another request of the same content, which is no sample of its own."""
    copy = pb.PredictResponse()
    copy.CopyFrom(answer)
    copy.request_id, copy.sampled = request_id, False
    return copy


class ExplanationServicer(pb_grpc.ExplanationServiceServicer):
    """Implements the contract.

    Args:
        core: Answers the calls.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        kept = kept_by_id(core.limits)
        self.repeats: Repeats[pb.PredictResponse] = Repeats(
            core.limits, pb.PredictResponse.ByteSize, is_lasting, core.on_repeat, kept
        )
        self.streams: StreamRepeats[pb.PredictStreamResponse] = StreamRepeats(
            kept, place_of, pb.PredictStreamResponse.ByteSize, core.on_repeat
        )

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        """Classifies and explains, unless the same call is answered, or being answered, already."""
        deadline, request_id = deadline_of(context.time_remaining()), request_id_of(context)
        asked = read_request(request, request_id, received().byte_count)
        check_caller(asked)

        async def work() -> pb.PredictResponse:
            with contract_paths(request):
                return await self.core.predict(asked, predict_response, deadline)

        state = self.core.ready()
        if not self.core.limits.response_cache_bytes and not is_named(request, context):
            return await work()
        hold = partial(state.admission.holding, asked.byte_count)
        content = self._content(request, state.model.version)
        answer, how = await self.repeats.answer(Asked(asked.request_id, content, deadline, work, hold))
        _tell(context, request_id, how)
        return answer if how != CACHED else renamed(answer, asked.request_id)

    async def PredictStream(
        self, request: pb.PredictStreamRequest, context: Any
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        """Classifies, and sends explanations as they come."""
        state = self.core.ready()
        interval, deadline = read_interval(request), deadline_of(context.time_remaining())
        request_id = request_id_of(context)
        asked = read_request(request.request, request_id, received().byte_count)
        check_caller(asked)

        async def work() -> AsyncGenerator[pb.PredictStreamResponse, None]:
            with under("request"), contract_paths(request.request):
                encode = stream_event(request_id)
                async with aclosing(self.core.predict_stream(asked, encode, interval, deadline)) as events:
                    async for event in events:
                        yield event

        events = work()
        if is_named(request.request, context):
            hold = partial(state.admission.holding, asked.byte_count)
            content = received().fingerprint or content_of(request, state.model.version)
            ended = partial(_tell, context, request_id)
            events = self.streams.events(AskedStream(asked.request_id, content, deadline, work, hold, ended))
        async with aclosing(events):
            async for event in events:
                yield event
        yield finished_event(request_id)

    def _content(self, request: pb.PredictRequest, version: str) -> str:
        """What tells a request from others of the same id, or, where answers are kept for all, from any other."""
        if self.core.limits.response_cache_bytes or not received().fingerprint:
            return content_of(request, version)
        return received().fingerprint

    async def ReportGroundTruth(
        self, request: pb.ReportGroundTruthRequest, context: Any
    ) -> pb.ReportGroundTruthResponse:
        """Takes what a sampled picture really showed."""
        return ground_truth_response(await self.core.report_ground_truth(read_report(request, received().byte_count)))

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: Any) -> pb.GetModelInfoResponse:
        """Describes the model."""
        return pb.GetModelInfoResponse(model=model_info(self.core.describe(request.model)))


def _tell(context: Any, request_id: str, how: str) -> None:
    """Tells a caller how a call was answered, if that was without work of its own."""
    if how:
        context.set_trailing_metadata(((REQUEST_ID, request_id), (REPEAT, how)))
